package btrfs

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever was done to two subvolumes of one origin, Compare says what a walk of
// both trees says, in either direction.
func TestCompareSaysWhatAWalkOfBothTreesSays(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("DEPLOYER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("DEPLOYER_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := disk(t)
	create(t, d, "s")
	shell(t, d, []string{"true", "chattr +C s", "btrfs property set s compression zstd"}[r.IntN(3)])
	disorder(t, r, d+"/s", 150)
	for round := range 12 {
		name := func(what string) string { return fmt.Sprint(what, round) }
		older := mustSnapshot(t, d, "s", name("older"))
		disorder(t, r, d+"/s", r.IntN(60))
		agree(t, older, mustSnapshot(t, d, "s", name("newer")))
		// What was put back goes on, and what it replaced is looked at.
		shell(t, d, "btrfs -q subvolume snapshot "+name("older")+" "+name("back")+"; sync")
		if round%3 == 0 { // and the snapshot between them is gone, with what it knew
			shell(t, d, "btrfs -q subvolume delete "+name("older")+"")
		}
		disorder(t, r, d+"/"+name("back"), r.IntN(60))
		back := mustSnapshot(t, d, name("back"), name("then"))
		agree(t, mustSnapshot(t, d, "s", name("replaced")), back)
		if t.Failed() {
			return
		}
	}
}

func agree(t *testing.T, a, b *os.File) {
	t.Helper()
	for _, pair := range [2][2]*os.File{{a, b}, {b, a}} {
		diff, err := compare(t, pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		want, again := walked(t, pair[0].Name(), pair[1].Name())
		diff.Changes = slices.DeleteFunc(diff.Changes, func(c Change) bool { return slices.Contains(again, c) && !slices.Contains(want, c) })
		if !slices.Equal(diff.Changes, want) {
			t.Errorf("%s to %s: got %d, want %d", filepath.Base(pair[0].Name()), filepath.Base(pair[1].Name()), len(diff.Changes), len(want))
			for _, c := range diff.Changes {
				if !slices.Contains(want, c) {
					t.Errorf("not so: %+v", c)
				}
			}
			for _, c := range want {
				if !slices.Contains(diff.Changes, c) {
					t.Errorf("not said: %+v", c)
				}
			}
		}
	}
}

// seen is a file or folder as a walk sees it: by its number and time of birth.
type seen struct {
	paths []string
	names map[string]bool // with the number of the folder
	looks string
	ctime unix.StatxTimestamp
}

func walk(t *testing.T, root string) map[string]*seen {
	t.Helper()
	all, numbers := map[string]*seen{}, map[string]uint64{}
	err := filepath.WalkDir(root, func(at string, _ fs.DirEntry, err error) error {
		var st unix.Statx_t
		if err == nil {
			err = unix.Statx(unix.AT_FDCWD, at, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL|unix.STATX_BTIME, &st)
		}
		if err != nil {
			return err
		}
		looks := fmt.Sprint(st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			looks += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(content))
		case unix.S_IFLNK:
			to, _ := os.Readlink(at)
			looks += to
		}
		value := make([]byte, 100)
		if n, err := unix.Lgetxattr(at, "user.x", value); err == nil {
			looks += string(value[:n])
		}
		rel, _ := filepath.Rel(root, at)
		id := fmt.Sprint(st.Ino, st.Btime)
		if st.Ino == RootInode { // of a snapshot, it was born with that
			id = "root"
		}
		if all[id] == nil {
			all[id] = &seen{names: map[string]bool{}, looks: looks, ctime: st.Ctime}
		}
		numbers[rel] = st.Ino
		all[id].paths = append(all[id].paths, rel)
		all[id].names[fmt.Sprint(numbers[filepath.Dir(rel)], filepath.Base(rel))] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// walked is the changes between two trees, the slow way. What was written again
// as it was looks the same and was touched: it may be told or not.
func walked(t *testing.T, older, newer string) (list, again []Change) {
	t.Helper()
	was, is := walk(t, older), walk(t, newer)
	into := &list
	add := func(kind, at, to string) { *into = append(*into, Change{Path: at, To: to, Kind: kind}) }
	for id, o := range was {
		n := is[id]
		if into = &list; n == nil {
			for _, at := range o.paths {
				add(Gone, at, "")
			}
			continue
		}
		renamed := fmt.Sprint(o.names) != fmt.Sprint(n.names)
		switch {
		case o.looks != n.looks:
			add(Changed, slices.Min(o.paths), "")
		case o.ctime != n.ctime:
			into = &again
			add(Changed, slices.Min(o.paths), "")
			if renamed {
				into = &list
			}
		case !renamed: // it may be elsewhere by its folder, which is told
			continue
		}
		var lost, got []string
		for _, at := range o.paths {
			if !slices.Contains(n.paths, at) {
				lost = append(lost, at)
			}
		}
		for _, at := range n.paths {
			if !slices.Contains(o.paths, at) {
				got = append(got, at)
			}
		}
		slices.Sort(lost)
		slices.Sort(got)
		if len(lost) == len(o.paths) && len(got) == len(n.paths) {
			add(Moved, lost[0], got[0])
			lost, got = lost[1:], got[1:]
		}
		for _, at := range lost {
			add(Gone, at, "")
		}
		for _, at := range got {
			add(New, at, "")
		}
	}
	into = &list
	for id, n := range is {
		if was[id] == nil {
			for _, at := range n.paths {
				add(New, at, "")
			}
		}
	}
	slices.SortFunc(list, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Kind, b.Kind))
	})
	return rewritten(list), again
}

// disorder does this and that to a tree.
func disorder(t *testing.T, r *rand.Rand, root string, times int) {
	t.Helper()
	for range times {
		var dirs, files []string
		_ = filepath.WalkDir(root, func(at string, e fs.DirEntry, _ error) error {
			if e.IsDir() {
				dirs = append(dirs, at)
			} else {
				files = append(files, at)
			}
			return nil
		})
		any := func(list []string) string { return list[r.IntN(len(list))] }
		fresh := func() string { return filepath.Join(any(dirs), fmt.Sprintf("n%d", r.IntN(1000))) }
		bytes := func(sizes ...int) []byte {
			b := make([]byte, sizes[r.IntN(len(sizes))])
			few := uint32(1 + r.IntN(256)) // kinds of bytes: some can be compressed
			for i := range b {
				b[i] = byte(r.Uint32N(few))
			}
			return b
		}
		if len(files) == 0 || r.IntN(4) == 0 {
			write(fresh(), bytes(0, 5, 1500, 9000, 300000)) // also into one that is there
			continue
		}
		f := any(files)
		switch r.IntN(17) {
		case 0:
			_ = os.Mkdir(fresh(), 0o755)
		case 1:
			_ = os.Rename(f, fresh())
		case 2:
			_ = os.Rename(any(dirs), fresh()) // not into itself: that fails
		case 3:
			_ = os.Link(f, fresh())
		case 4:
			_ = os.Remove(f)
		case 5:
			if dir := any(dirs); dir != root && r.IntN(3) == 0 {
				_ = os.RemoveAll(dir)
			}
		case 6, 7, 8:
			if file, err := os.OpenFile(f, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
				_, _ = file.WriteAt(bytes(16, 4096, 20000), int64(r.IntN(200000)))
				file.Close()
			}
		case 9:
			if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() {
				_ = os.Truncate(f, int64(r.IntN(20000)))
			}
		case 10:
			if file, err := os.OpenFile(f, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
				how := []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE, 0}
				_ = unix.Fallocate(int(file.Fd()), how[r.IntN(3)], int64(r.IntN(8))*4096, 8192)
				file.Close()
			}
		case 11:
			_ = unix.Fchmodat(unix.AT_FDCWD, any(append(files, dirs...)), uint32(0o700+r.IntN(64)), 0)
		case 12:
			_ = os.Lchown(any(append(files, dirs...)), r.IntN(9), r.IntN(9))
		case 13:
			_ = unix.Setxattr(any(dirs), "user.x", bytes(3, 50), 0)
			_ = unix.Removexattr(any(dirs), "user.x")
			_ = unix.Setxattr(f, "user.x", bytes(3, 50), 0)
		case 14:
			_ = os.Symlink(f, fresh())
			_ = unix.Mkfifo(fresh(), 0o600)
		case 15: // as programs save
			write(f+".tmp", bytes(5, 9000))
			_ = os.Rename(f+".tmp", f)
		case 16:
			now := time.Now()
			_ = os.Chtimes(f, now, now)
			for i := range r.IntN(2) * 200 { // more names than one item of the tree has place for
				_ = os.Link(f, fmt.Sprintf("%s-%d%s", filepath.Join(filepath.Dir(f), "l"), i, strings.Repeat("x", 150)))
			}
		}
	}
}

// write does not wait for a reader of what is a pipe.
func write(at string, content []byte) {
	if f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644); err == nil {
		_, _ = f.Write(content)
		f.Close()
	}
}

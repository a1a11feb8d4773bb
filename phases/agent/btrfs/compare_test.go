package btrfs

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func shell(t *testing.T, dir, script string) {
	t.Helper()
	c := exec.Command("bash", "-euc", script)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", script, out)
	}
}

func mustSnapshot(t *testing.T, dir, src, name string) *os.File {
	t.Helper()
	s, d, err := openBoth(filepath.Join(dir, src), dir)
	if err == nil {
		err = Snapshot(s, d, name)
		s.Close()
		d.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func compare(t *testing.T, older, newer *os.File) (Diff, error) {
	t.Helper()
	tree, err := ReadTree(older)
	if err != nil {
		t.Fatal(err)
	}
	return tree.Compare(older, newer)
}

// find-new shows none of deletions, renames, modes and truncations.
func TestCompareNamesEveryKindOfChange(t *testing.T) {
	d := disk(t)
	create(t, d, "s")
	shell(t, d+"/s", `
		mkdir -p keep gone/deep old/sub swap1 swap2 'odd
		dir'; for f in keep/{same,grown,short,mode,xattr,moved,linked,touched,replaced} gone/deep/{a,b} old/sub/f old/sub/g swap1/x swap2/y; do
			head -c 8192 /dev/urandom > $f; done; ln keep/linked keep/second`)
	older := mustSnapshot(t, d, "s", "older")
	shell(t, d+"/s", `
		head -c 100000 /dev/urandom >> keep/grown; truncate -s 10 keep/short; chmod 600 keep/mode
		mv keep/moved keep/elsewhere; ln keep/linked keep/third; rm keep/second; touch keep/touched; rm -r gone
		echo new > keep/tmp; mv keep/tmp keep/replaced
		mv old new; echo x >> new/sub/f; mv swap1 swap3; mv swap2 swap1; mv swap3 swap2
		mkdir -p added/dir; echo 1 > 'added/dir/-n
		l'; mkfifo added/fifo`)
	if err := unix.Setxattr(d+"/s/keep/xattr", "user.x", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	diff, err := compare(t, older, mustSnapshot(t, d, "s", "newer"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range diff.Changes {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %q %s", c.Kind, c.Path, c.To)))
	}
	want := []string{
		`new "added"`, `new "added/dir"`, `new "added/dir/-n\n\t\tl"`, `new "added/fifo"`,
		`gone "gone"`, `gone "gone/deep"`, `gone "gone/deep/a"`, `gone "gone/deep/b"`,
		`changed "keep/grown"`, `changed "keep/mode"`, `moved "keep/moved" keep/elsewhere`, `changed "keep/replaced"`,
		`gone "keep/second"`, `changed "keep/short"`, `new "keep/third"`, `changed "keep/xattr"`,
		`moved "old" new`, `changed "old/sub/f"`, `moved "old/sub/f" new/sub/f`, `moved "swap1" swap2`, `moved "swap2" swap1`,
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if diff.Bytes < 100000 || diff.Bytes > 150000 {
		t.Errorf("%d bytes", diff.Bytes)
	}
	same, err := compare(t, older, mustSnapshot(t, d, "older", "again"))
	if err != nil || len(same.Changes) > 0 || same.Bytes > 0 {
		t.Errorf("%+v %v", same, err)
	}
}

// A file whose path sorted in between kept the two from each other.
func TestAFileThatWasWrittenAnewAndRenamedIsOneChange(t *testing.T) {
	d := disk(t)
	create(t, d, "s")
	shell(t, d+"/s", "echo 1 > x; echo 1 > xh; echo 1 > y")
	older := mustSnapshot(t, d, "s", "older")
	shell(t, d+"/s", "for f in x xh; do echo 2 > .$f.tmp; mv .$f.tmp $f; done; mkdir -p y2; rm y; mv y2 y")
	diff, err := compare(t, older, mustSnapshot(t, d, "s", "newer"))
	if want := []Change{{Path: "x", Kind: Changed}, {Path: "xh", Kind: Changed}, {Path: "y", Kind: Changed}}; err != nil || !slices.Equal(diff.Changes, want) {
		t.Errorf("%+v %v", diff, err)
	}
}

func TestCompareRefusesWhatCanBeWritten(t *testing.T) {
	d := disk(t)
	create(t, d, "s")
	live, err := Open(d + "/s")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := compare(t, mustSnapshot(t, d, "s", "older"), live); err == nil {
		t.Error("it compared what can be written")
	}
}

// Options of a mount hold for the whole file system: a tool's must have none.
func TestMountLeavesTheOptionsOfOthers(t *testing.T) {
	d := disk(t)
	shell(t, d, "mount -o remount,compress=zstd:5,noatime .")
	create(t, d, "a")
	before, _ := exec.Command("findmnt", "-no", "OPTIONS", d).Output()
	device, _ := exec.Command("findmnt", "-no", "SOURCE", d).Output()
	top, err := Mount(strings.TrimSpace(string(device)), "")
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	if after, _ := exec.Command("findmnt", "-no", "OPTIONS", d).Output(); !bytes.Equal(before, after) || !bytes.Contains(after, []byte("zstd:5")) {
		t.Errorf("%s, then %s", before, after)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if n := bytes.Count(mounts, bytes.TrimSpace(device)); n != 1 {
		t.Errorf("%d mounts are to be seen", n)
	}
	f, err := At(top.File, "a")
	if err != nil || !IsRoot(f) {
		t.Error(err)
	}
	f.Close()
	if _, err := Mount(strings.TrimSpace(string(device)), "none"); err == nil {
		t.Error("a subvolume that is not there was mounted")
	}
}

func TestTreeKnowsWhatIsDefaultAndWhatIsCleaned(t *testing.T) {
	d := disk(t)
	create(t, d, "a")
	create(t, d, "b")
	os.WriteFile(d+"/a/f", []byte(rand.Text()), 0o600)
	f, _ := Open(d)
	defer f.Close()
	a, _ := Describe(d + "/a")
	b, _ := Describe(d + "/b")
	shell(t, d, fmt.Sprintf("btrfs subvolume set-default %d .", b.ID))
	if err := DestroyID(f, a.ID); err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree(f)
	if err != nil || tree.Default != b.ID || !tree.Cleaning(a.ID) || tree.Cleaning(b.ID) {
		t.Errorf("%+v %v", tree, err)
	}
	if _, ok := tree.Find(a.UUID); ok {
		t.Error("a deleted subvolume was found")
	}
	if all := tree.All(); len(all) != 1 || all[0].UUID != b.UUID || !all[0].Created.Equal(b.Created) || all[0].Changed == 0 {
		t.Errorf("%+v, want %+v", all, b)
	}
}

func TestUsageAgreesWithTheCommand(t *testing.T) {
	d := disk(t)
	f, _ := Open(d)
	defer f.Close()
	u, err := Usage(f)
	usage, _ := exec.Command("btrfs", "filesystem", "usage", "-b", d).Output()
	out := strings.Join(strings.Fields(string(usage)), " ")
	if err != nil || u.Device != 256<<20 || !strings.Contains(out, fmt.Sprintf("Device unallocated: %d ", u.Unallocated)) ||
		!strings.Contains(out, fmt.Sprintf("Size:%d, Used:%d", u.MetaOf, u.Meta)) || u.Copies != 2 || u.Reserve == 0 {
		t.Errorf("%+v %v\n%s", u, err, out)
	}
}

// A signal that found the sending thread waiting for a full pipe made the kernel
// begin the call again: the stream had a second beginning in its middle.
func TestASignalDoesNotBeginAStreamAgain(t *testing.T) {
	dir := disk(t)
	create(t, dir, "a")
	shell(t, dir, "head -c 4M /dev/urandom > a/file")
	snapshot := mustSnapshot(t, dir, "a", "snap")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- Send(snapshot, 0, w); w.Close() }()
	var stream []byte
	for part := make([]byte, 64<<10); ; {
		tasks, _ := os.ReadDir("/proc/self/task")
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
		n, err := r.Read(part)
		stream = append(stream, part[:n]...)
		if err != nil || len(stream) > 32<<20 {
			break
		}
	}
	r.Close()
	if err := <-sent; err != nil || bytes.Count(stream, []byte("btrfs-stream\x00")) != 1 || len(stream) < 4<<20 {
		t.Errorf("%v: %d bytes with %d beginnings", err, len(stream), bytes.Count(stream, []byte("btrfs-stream\x00")))
	}
}

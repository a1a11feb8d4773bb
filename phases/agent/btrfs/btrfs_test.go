package btrfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestLayoutsAreTheKernels(t *testing.T) {
	for name, c := range map[string][2]uintptr{
		"vol_args":             {unsafe.Sizeof(volArgs{}), 4096},
		"vol_args_v2":          {unsafe.Sizeof(volArgsV2{}), 4096},
		"vol_args_v2.name":     {unsafe.Offsetof(volArgsV2{}.Name), 56},
		"get_subvol_info":      {unsafe.Sizeof(subvolInfoArgs{}), 504},
		"get_subvol_info.uuid": {unsafe.Offsetof(subvolInfoArgs{}.UUID), 296},
		"fs_info":              {unsafe.Sizeof(fsInfoArgs{}), 1024},
		"ino_lookup":           {unsafe.Sizeof(inoLookupArgs{}), 4096},
		"search_key":           {unsafe.Sizeof(searchKey{}), 104},
		"search_args_v2":       {unsafe.Offsetof(searchArgs{}.Buf), 112},
		"search_header":        {unsafe.Sizeof(searchHeader{}), headerSize},
		"dev_info":             {unsafe.Sizeof(devInfoArgs{}), 4096},
		"dev_info.path":        {unsafe.Offsetof(devInfoArgs{}.Path), 3072},
		"space_info.spaces":    {unsafe.Offsetof(spaceArgs{}.Spaces), 16},
		"space_info.space":     {unsafe.Sizeof(spaceArgs{}.Spaces[0]), 24},
		"send":                 {unsafe.Sizeof(sendArgs{}), 72},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %d, the kernel has %d", name, c[0], c[1])
		}
	}
}

func TestCursorMovesAsOneNumber(t *testing.T) {
	key := searchKey{MaxObject: lastID}
	if !advance(&key, searchHeader{Object: 300, Type: backref, Offset: 5}) || key.MinObject != 300 || key.MinType != backref || key.MinOffset != 6 {
		t.Errorf("%+v", key)
	}
	if !advance(&key, searchHeader{Object: 300, Type: backref, Offset: ^uint64(0)}) || key.MinType != backref+1 || key.MinOffset != 0 {
		t.Errorf("%+v", key)
	}
	if !advance(&key, searchHeader{Object: 300, Type: 255, Offset: ^uint64(0)}) || key.MinObject != 301 || key.MinType != 0 {
		t.Errorf("%+v", key)
	}
	if advance(&key, searchHeader{Object: lastID, Type: 255, Offset: ^uint64(0)}) {
		t.Error("it goes on behind the end")
	}
}

func TestNamesAreSingleNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", strings.Repeat("x", 256)} {
		if setName(make([]byte, 4000), name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func disk(t *testing.T) string {
	t.Helper()
	image, at := filepath.Join(t.TempDir(), "disk.img"), t.TempDir()
	for _, args := range [][]string{{"truncate", "-s", "256M", image}, {"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			why := "needs root, btrfs-progs and loop devices: " + strings.TrimSpace(string(out)+" "+err.Error())
			if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
				t.Fatal(why)
			}
			t.Skip(why)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return at
}

func create(t *testing.T, dir, name string) {
	t.Helper()
	f, err := Open(dir)
	if err == nil {
		err = createIn(f, name)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func createIn(dir *os.File, name string) error {
	const iocSubvolCreate = 1<<30 | 4096<<16 | magic<<8 | 14 // only tests ever call it
	var a volArgs
	return named(iocSubvolCreate, "make subvolume", dir, name, a.Name[:], &a)
}

// The last subvolume has a nested one: there ROOT_REF sorts behind ROOT_BACKREF,
// which is where a careless cursor never ends.
func TestTreeWithNestedSubvolumes(t *testing.T) {
	d := disk(t)
	create(t, d, "a")
	os.MkdirAll(d+"/a/dir", 0o755)
	create(t, d+"/a/dir", "b\nc")
	create(t, d, "last")
	create(t, d+"/last", "-n")
	create(t, d+"/last/-n", "deep est")
	f, err := Open(d + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := ReadTree(f)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for id := range tree.refs {
		p, err := tree.Path(id)
		if err != nil {
			t.Error(err)
		}
		paths = append(paths, p)
	}
	slices.Sort(paths)
	if want := []string{"a", "a/dir/b\nc", "last", "last/-n", "last/-n/deep est"}; !slices.Equal(paths, want) {
		t.Errorf("%q", paths)
	}
	info, err := Get(f)
	if err != nil {
		t.Fatal(err)
	}
	if below := tree.Below(info.ID); !slices.Equal(below, []string{"dir/b\nc"}) {
		t.Errorf("%q", below)
	}
	if below := tree.Below(topLevel); len(below) != 5 || below[0] != "a" {
		t.Errorf("%q", below)
	}
	if id, ok := tree.Find(info.UUID); !ok || id != info.ID {
		t.Error("the uuid was not found")
	}
}

func TestTreeOfManySubvolumes(t *testing.T) {
	d := disk(t)
	f, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const n = 700 // more than one buffer of items
	for i := range n {
		if err := createIn(f, fmt.Sprintf("%s-%04d", strings.Repeat("long", 20), i)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := ReadTree(f)
	if err != nil || len(tree.refs) != n || len(tree.Below(topLevel)) != n {
		t.Errorf("%d of %d: %v", len(tree.refs), n, err)
	}
}

func TestSnapshotIsReadOnlyAndNeverReplaces(t *testing.T) {
	d := disk(t)
	create(t, d, "src")
	os.WriteFile(d+"/src/f", []byte("x"), 0o600)
	src, dir, err := openBoth(d+"/src", d)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	defer dir.Close()
	if err := Snapshot(src, dir, "-snap"); err != nil {
		t.Fatal(err)
	}
	info, err := Describe(d + "/-snap")
	want, _ := Get(src)
	if err != nil || !info.ReadOnly || info.ParentUUID != want.UUID || info.Created.IsZero() {
		t.Errorf("%+v %v", info, err)
	}
	if err := Snapshot(src, dir, "-snap"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the name was taken, but: %v", err)
	}
	if entries, _ := os.ReadDir(d + "/-snap"); len(entries) != 1 {
		t.Error("it was nested")
	}
	if err := Sync(dir); err != nil {
		t.Error(err)
	}
	if _, path, err := NewestReadOnly(d); err != nil || path != d+"/-snap" {
		t.Error(path, err)
	}
	if err := Destroy(dir, "-snap"); err != nil {
		t.Error(err)
	}
}

func openBoth(a, b string) (x, y *os.File, err error) {
	if x, err = Open(a); err == nil {
		y, err = Open(b)
	}
	return x, y, err
}

func TestWhatIsNoSubvolumeIsNamed(t *testing.T) {
	if _, err := Describe("/proc"); !errors.Is(err, ErrNotBtrfs) {
		t.Error(err)
	}
	d := disk(t)
	os.Mkdir(d+"/folder", 0o755)
	if _, err := Describe(d + "/folder"); err == nil || !strings.Contains(err.Error(), "not a subvolume") {
		t.Error(err)
	}
	if _, err := Describe(d); err != nil {
		t.Error(err)
	}
	if _, err := Open(d + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

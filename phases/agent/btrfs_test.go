package agent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

const stamp = "20260102T030405Z"

// disk is a fake host with a real Btrfs at /disk, and a subvolume in it for
// every name.
func disk(t *testing.T, names ...string) *host {
	t.Helper()
	h := newHost(t)
	mountBtrfs(t, h.path("disk"))
	for _, name := range names {
		must(t, exec.Command("btrfs", "-q", "subvolume", "create", h.path("disk/"+name)).Run())
	}
	return h
}

var diskSize int64 = 256 << 20

func mountBtrfs(t *testing.T, at string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, diskSize))
	must(t, os.MkdirAll(at, 0o755))
	for _, args := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			skip(t, "needs root, btrfs-progs and loop devices: "+strings.TrimSpace(string(out)+" "+err.Error()))
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func (h *host) shoot(dir string, paths ...string) (SnapshotSet, error) {
	return h.snapshot(h.t.Context(), SnapshotArgs{Run: "r-1", Dir: dir, Stamp: stamp, Paths: paths})
}

func TestSetIsReadOnlyAndListed(t *testing.T) {
	odd := []string{"a b", "-dash", "new\nline", "ünï"}
	h := disk(t, append(odd, "snaps", "with-dash")...)
	paths := []string{"/disk/with-dash"}
	for _, n := range odd {
		h.file("disk/"+n+"/file", "x")
		paths = append(paths, "/disk/"+n)
	}
	set, err := h.shoot("/disk/snaps", paths...)
	must(t, err)
	for i, s := range set.Snapshots {
		if !s.ReadOnly || s.Source != paths[i] || s.Run != "r-1" || time.Since(s.Created) > time.Minute || s.ParentUUID == "" {
			t.Errorf("%+v", s)
		}
		if err := os.WriteFile(s.Path+"/new", nil, 0o600); err == nil {
			t.Error("a snapshot can be written")
		}
		if i > 0 && !exists(s.Path+"/file") {
			t.Error("a snapshot is empty")
		}
	}
	if filepath.Base(set.Snapshots[0].Path) != stamp+"-r-1-with-dash" {
		t.Error(set.Snapshots[0].Path)
	}
	list, err := h.snapshots(t.Context(), DiscoverArgs{Paths: []string{"/disk/snaps"}})
	must(t, err)
	if len(list) != len(set.Snapshots) {
		t.Fatalf("%d of %d are listed", len(list), len(set.Snapshots))
	}
	for _, s := range list {
		if s.Run != "r-1" {
			t.Errorf("%+v", s)
		}
	}
	s, _ := h.probe(t.Context(), Probe{Kind: "snapshot", Target: "/disk/snaps", Newer: time.Hour})
	old, _ := h.probe(t.Context(), Probe{Kind: "snapshot", Target: "/disk/snaps", Newer: time.Nanosecond})
	if !s.OK || old.OK {
		t.Errorf("%+v %+v", s, old)
	}
	if s, _ := h.probe(t.Context(), Probe{Kind: "subvolumes", Paths: paths}); !s.OK {
		t.Errorf("%+v", s)
	}
}

// recorder writes down the order of calls, and fails where it is told to.
type recorder struct {
	calls []string
	fail  string
}

func (r *recorder) note(call string) error {
	r.calls = append(r.calls, call)
	if r.fail == call {
		return unix.ENOSPC
	}
	return nil
}

func (r *recorder) fs() Snapper {
	s := kernel
	s.Sync = func(dir *os.File) error { return errors.Join(r.note("sync"), btrfs.Sync(dir)) }
	s.Snapshot = func(src, dir *os.File, name string) error {
		if err := r.note("snapshot " + filepath.Base(src.Name())); err != nil {
			return err
		}
		return btrfs.Snapshot(src, dir, name)
	}
	s.Destroy = func(dir *os.File, name string) error {
		return errors.Join(r.note("destroy "+name), btrfs.Destroy(dir, name))
	}
	return s
}

func TestSetIsOnTheDiskBeforeItAnswers(t *testing.T) {
	h := disk(t, "a", "b")
	r := &recorder{}
	h.fs = r.fs()
	_, err := h.shoot("/disk/snaps", "/disk/a", "/disk/b")
	must(t, err)
	if want := []string{"sync", "snapshot a", "snapshot b", "sync"}; !slices.Equal(r.calls, want) {
		t.Errorf("%q, want %q", r.calls, want)
	}
}

func TestSetIsAllOrNothing(t *testing.T) {
	h := disk(t, "a", "b", "c", "snaps")
	r := &recorder{fail: "snapshot c"}
	h.fs = r.fs()
	_, err := h.shoot("/disk/snaps", "/disk/a", "/disk/b", "/disk/c")
	isCode(t, err, "no-space")
	if entries, _ := os.ReadDir(h.path("disk/snaps")); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	// A snapshot that is not of this call stays.
	r.fail = ""
	_, err = h.shoot("/disk/snaps", "/disk/b")
	must(t, err)
	_, err = h.shoot("/disk/snaps", "/disk/a", "/disk/b")
	isCode(t, err, "exists")
	if entries, _ := filepath.Glob(h.path("disk/snaps/2*")); len(entries) != 1 {
		t.Errorf("there are %v", entries)
	}
}

func TestSetRefusesWhatItCannotKeep(t *testing.T) {
	h := disk(t, "a", "a/inner")
	h.file("disk/folder/x", "")
	for _, c := range []struct {
		dir, path, code string
	}{
		{"/disk/a/snaps", "/disk/a", "invalid"},       // inside the subject
		{"/disk/a/inner/snaps", "/disk/a", "invalid"}, // in a subvolume nested in the subject
		{"/disk/snaps", "/disk", "invalid"},           // everything is inside the top level
		{"/disk/snaps", "/disk/folder", "invalid"},    // no subvolume
		{"/disk/snaps", "/disk/none", "not-found"},
		{"/disk/snaps", "/etc", "not-btrfs"},
		{"/etc/snaps", "/disk/a", "not-btrfs"},
	} {
		_, err := h.shoot(c.dir, c.path)
		if err == nil || asError(err).Code != c.code {
			t.Errorf("%s into %s: %v, want %s", c.path, c.dir, err, c.code)
		}
	}
	_, err := h.shoot("/disk/snaps", "/disk/a", "/disk/a")
	isCode(t, err, "invalid")
	if exists(h.path("disk/a/snaps")) || exists(h.path("etc/snaps")) {
		t.Error("a refused call made its folder")
	}
}

func TestSetFindsAFolderByItself(t *testing.T) {
	h := disk(t, "a")
	set, err := h.shoot("", "/disk/a")
	must(t, err)
	if dir := filepath.Dir(set.Snapshots[0].Path); dir != h.path("disk/.deployer-snapshots") {
		t.Error(dir)
	}
}

func TestSetAcrossFileSystems(t *testing.T) {
	h := disk(t, "a")
	mountBtrfs(t, h.path("other"))
	h.sh("btrfs -q subvolume create other/b")
	r := &recorder{}
	h.fs = r.fs()
	set, err := h.shoot("", "/disk/a", "/other/b")
	must(t, err)
	if !strings.HasPrefix(set.Snapshots[0].Path, h.path("disk")) || !strings.HasPrefix(set.Snapshots[1].Path, h.path("other")) || len(r.calls) != 6 {
		t.Errorf("%+v %v", set, r.calls)
	}
}

func TestDiscoverSaysWhatIsThere(t *testing.T) {
	h := disk(t, "a", "a/x y", "a/x y/deep")
	h.file("disk/a/dir/f", "")
	d, err := h.discover(t.Context(), DiscoverArgs{Paths: []string{"/disk/a", "/disk/a/dir", "/etc", "/none"}})
	must(t, err)
	v := d.Volumes
	if !v[0].Btrfs || !v[0].Root || v[0].Name != "a" || v[0].Problem != "" || v[0].FSID == "" || !slices.Equal(v[0].Nested, []string{"/disk/a/x y", "/disk/a/x y/deep"}) {
		t.Errorf("%+v", v[0])
	}
	if !v[1].Btrfs || v[1].Root || v[1].ID != v[0].ID || v[1].Problem == "" || v[2].Btrfs || v[2].Problem == "" || !strings.Contains(v[3].Problem, "does not exist") {
		t.Errorf("%+v", v[1:])
	}
}

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hbohlen/deployer/state"
)

// TestRealFullDisk fills a file system of 2 MiB to the last byte.
func TestRealFullDisk(t *testing.T) {
	dir := filepath.Join(mountTiny(t), runID)
	j, err := state.Create(dir, nil)
	must(t, err)
	defer j.Close()
	appendNotes(t, j, 3)
	fill(t, filepath.Dir(dir))
	for !j.Full() {
		must(t, j.Append(&state.Record{Kind: state.Note, Text: strings.Repeat("x", 1000)}))
	}
	for range 300 { // a restore has room
		must(t, j.Append(&state.Record{Kind: state.UndoDone, Text: strings.Repeat("x", 1000)}))
	}
	recs, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(recs) < 303 {
		t.Fatalf("%d records, %v, %v", len(recs), damage, err)
	}
	fill(t, filepath.Dir(dir))
	if _, err := state.Create(filepath.Join(filepath.Dir(dir), "run-2"), nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a run may begin on a full disk: %v", err)
	}
	must(t, j.Close())
	j, recs, err = state.Open(dir, nil)
	must(t, err)
	defer j.Close()
	if !j.Full() || len(recs) < 303 {
		t.Fatalf("opened on a full disk: full is %v, %d records", j.Full(), len(recs))
	}
}

func mountTiny(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	mount(t, "deployer-test", dir, "tmpfs", 0, "size=2m")
	return dir
}

// mount mounts until the test ends, or skips it.
func mount(t *testing.T, from, dir, kind string, flags uintptr, options string) {
	t.Helper()
	err := syscall.Mount(from, dir, kind, flags, options)
	if err != nil {
		if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
			t.Fatalf("cannot mount %s: %v; run as root", from, err)
		}
		t.Skipf("cannot mount %s: %v; run as root to see a real full or read-only disk", from, err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
}

// TestReadOnlyMountIsReadAndNotWritten mounts the run's folder a second time,
// to read only.
func TestReadOnlyMountIsReadAndNotWritten(t *testing.T) {
	d := segments(t)
	hold(t, d, true)
	ro := &state.RunDir{ID: d.ID, Path: t.TempDir()}
	mount(t, d.Path, ro.Path, "", syscall.MS_BIND, "")
	must(t, syscall.Mount("", ro.Path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	recs, damage, err := state.Read(ro.Path)
	if run := state.Fold(recs); err != nil || damage != nil || run.Seq != 9 || !ro.Live() {
		t.Fatalf("%d records, %v, %v, live: %v", len(recs), damage, err, ro.Live())
	}
	_, leaseErr := ro.Lease(true)
	_, _, openErr := state.Open(ro.Path, nil)
	_, _, restoreErr := state.OpenForRestore(ro.Path, nil)
	_, createErr := state.Create(filepath.Join(ro.Path, "new"), nil)
	for what, err := range map[string]error{"cannot take run": leaseErr, "cannot open the journal": openErr, "cannot open": restoreErr, "cannot create": createErr} {
		if !errors.Is(err, syscall.EROFS) || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRunIsTakenOverOnAFullDisk: a way back needs a lease and a segment.
func TestRunIsTakenOverOnAFullDisk(t *testing.T) {
	d := &state.RunDir{ID: runID, Path: filepath.Join(mountTiny(t), runID)}
	j, err := state.Create(d.Path, nil)
	must(t, err)
	appendNotes(t, j, 3)
	must(t, j.Close())
	fill(t, filepath.Dir(d.Path))
	lease, err := d.Lease(false)
	must(t, err)
	defer lease.Release()
	j, _, err = state.OpenForRestore(d.Path, lease)
	must(t, err)
	defer j.Close()
	appendNotes(t, j, 3)
	if recs, damage, err := state.Read(d.Path); err != nil || damage != nil || len(recs) != 6 || !j.Full() {
		t.Fatalf("%d records, %v, %v", len(recs), damage, err)
	}
}

// fill takes all the room there is.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

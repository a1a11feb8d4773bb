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
	err := syscall.Mount("deployer-test", dir, "tmpfs", 0, "size=2m")
	if err != nil {
		if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
			t.Fatalf("cannot mount a tmpfs: %v; run as root", err)
		}
		t.Skipf("cannot mount a tmpfs: %v; run as root to see a real full disk", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	return dir
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

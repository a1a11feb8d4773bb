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

func hasBallast(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "ballast"))
	return err == nil && info.Size() == 1<<20
}

// fullUntilFreed fails as a full disk does, until the ballast is gone.
func fullUntilFreed(dir string, part int) func([]byte) (int, error) {
	return func([]byte) (int, error) {
		if hasBallast(dir) {
			return part, syscall.ENOSPC
		}
		return 0, nil
	}
}

func TestFullDiskFreesTheBallast(t *testing.T) {
	j, dir, d := wrapped(t)
	appendNotes(t, j, 2)
	if !hasBallast(dir) || j.Full() {
		t.Fatal("it begins full")
	}
	d.onWrite = fullUntilFreed(dir, 7)
	appendNotes(t, j, 2)
	if hasBallast(dir) || !j.Full() {
		t.Fatalf("ballast is there: %v; full: %v", hasBallast(dir), j.Full())
	}
	recs, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(recs) != 4 {
		t.Fatalf("%v, %v, %v", texts(recs), damage, err)
	}
}

func TestSyncThatFindsNoRoomWritesAgain(t *testing.T) {
	j, dir, d := wrapped(t)
	d.onSync = func() error { _, err := fullUntilFreed(dir, 0)(nil); return err }
	appendFromLanes(t, j, 8, 10)
	recs, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(recs) != 80 || !j.Full() {
		t.Fatalf("%d records, %v, %v, full: %v", len(recs), damage, err, j.Full())
	}
}

func TestDiskFullForGoodFailsWithoutEndingTheJournal(t *testing.T) {
	j, dir, d := wrapped(t)
	d.onWrite = func([]byte) (int, error) { return 5, syscall.ENOSPC }
	err := j.Append(&state.Record{Kind: state.Note})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Fatal(err)
	}
	d.onWrite = nil
	appendNotes(t, j, 1)
	if recs, damage, _ := state.Read(dir); damage != nil || len(recs) != 1 {
		t.Fatalf("%v, %v", texts(recs), damage)
	}
}

func TestBallastComesBackWithARunAndGoesWithItsEnd(t *testing.T) {
	j, dir := create(t)
	must(t, os.Remove(filepath.Join(dir, "ballast")))
	must(t, j.Close())
	j, _, err := state.Open(dir, nil)
	must(t, err)
	defer j.Close()
	if !hasBallast(dir) || j.Full() {
		t.Fatal("no ballast in a run that goes on")
	}
	must(t, j.Append(&state.Record{Kind: state.RunFinished, Data: raw(t, state.Finished{Outcome: state.Succeeded})}))
	if hasBallast(dir) || j.Full() {
		t.Fatal("a finished run keeps its ballast")
	}
}

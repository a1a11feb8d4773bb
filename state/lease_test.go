package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/state"
)

// oldLease is one of the time before epochs, held by this process.
func oldLease(t *testing.T, d *state.RunDir) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(d.Path, "lease"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString(`{"pid":7,"who":"mo@desk","since":"2026-03-01T22:00:00Z"}`)
	must(t, err)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	return f
}

// silence lets d's lease look as if its holder had given no sign for so long.
func silence(t *testing.T, d *state.RunDir, name string, since time.Duration) {
	t.Helper()
	at := time.Now().Add(-since)
	must(t, os.Chtimes(filepath.Join(d.Path, name), at, at))
}

func emptyRun(t *testing.T) *state.RunDir {
	return &state.RunDir{ID: runID, Path: t.TempDir()}
}

func TestEachTakeoverBeginsAnEpoch(t *testing.T) {
	d := emptyRun(t)
	first := hold(t, d, false)
	var held *state.Held
	if _, err := d.Lease(false); !errors.As(err, &held) || held.Owner.PID != os.Getpid() || held.Owner.Epoch != 1 {
		t.Fatalf("%v, %+v", err, held)
	}
	must(t, first.Lost())
	second := hold(t, d, true)
	if first.Epoch() != 1 || second.Epoch() != 2 {
		t.Fatal(first.Epoch(), second.Epoch())
	}
	var fenced *state.Fenced
	if err := first.Lost(); !errors.As(err, &fenced) || fenced.Epoch != 1 || fenced.Owner.Epoch != 2 || fenced.Owner.PID != os.Getpid() || fenced.Owner.Since.IsZero() {
		t.Fatalf("%v, %+v", err, fenced)
	}
	if msg := fenced.Error(); !strings.Contains(msg, "took it over") || !strings.Contains(msg, "deployer status") {
		t.Fatal(msg)
	}
	must(t, second.Lost())
	must(t, second.Release())
	if d.Live() {
		t.Fatal("the first epoch keeps the run")
	}
	if third := hold(t, d, false); third.Epoch() != 3 {
		t.Fatal(third.Epoch())
	}
}

func TestSilentLeaseIsDead(t *testing.T) {
	d := emptyRun(t)
	hold(t, d, false)
	silence(t, d, "lease-1", state.LeaseExpires-5*time.Second)
	if !d.Live() {
		t.Fatal("dead too early")
	}
	silence(t, d, "lease-1", state.LeaseExpires+time.Second)
	if d.Live() {
		t.Fatal("a stopped process has the lease")
	}
	hold(t, d, false)
	defer state.ForTestClock(func() time.Time { return time.Now().Add(state.LeaseExpires + time.Second) })()
	if d.Live() {
		t.Fatal("it does not grow old")
	}
}

func TestHeartbeatUntilRelease(t *testing.T) {
	defer state.ForTestBeat(5 * time.Millisecond)()
	d := emptyRun(t)
	lease := hold(t, d, false)
	for range 3 {
		silence(t, d, "lease-1", time.Hour)
		for end := time.Now().Add(10 * time.Second); !d.Live(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no sign of the holder")
			}
		}
	}
	must(t, lease.Release())
	silence(t, d, "lease-1", time.Hour)
	time.Sleep(20 * time.Millisecond)
	info, err := os.Stat(filepath.Join(d.Path, "lease-1"))
	if err != nil || time.Since(info.ModTime()) < time.Minute {
		t.Fatal("it beats after its release")
	}
}

// A process of the time before epochs gives no sign: it holds while it lives.
func TestLeaseOfTheTimeBeforeEpochsIsTheFirst(t *testing.T) {
	d := emptyRun(t)
	f := oldLease(t, d)
	silence(t, d, "lease", time.Hour)
	var held *state.Held
	if _, err := d.Lease(false); !errors.As(err, &held) {
		t.Fatal(err)
	}
	want := state.Owner{Epoch: 1, PID: 7, Who: "mo@desk", Since: time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)}
	if diff := cmp.Diff(want, held.Owner); diff != "" {
		t.Fatal(diff)
	}
	must(t, f.Close())
	if lease := hold(t, d, false); lease.Epoch() != 2 {
		t.Fatal(lease.Epoch())
	}
}

func TestLeaseNamesItsHolder(t *testing.T) {
	d := emptyRun(t)
	hold(t, d, false)
	data, err := os.ReadFile(filepath.Join(d.Path, "lease-1"))
	must(t, err)
	for _, word := range []string{`"epoch":1`, `"pid":`, `"who":"`, `"since":"`, `"boot_id":"`} {
		if !strings.Contains(string(data), word) {
			t.Errorf("no %s in %s", word, data)
		}
	}
	left, err := filepath.Glob(filepath.Join(d.Path, ".*"))
	info, serr := os.Stat(filepath.Join(d.Path, "lease-1"))
	if err != nil || serr != nil || len(left) != 0 || info.Mode().Perm() != 0o600 {
		t.Fatal(left, info.Mode(), err, serr)
	}
}

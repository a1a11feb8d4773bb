package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/state"
)

func store(t testing.TB) *state.Store {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "state"))
	s, err := state.OpenStore("web-0a1b2c3d")
	must(t, err)
	return s
}

// addRun adds a run that ended as outcome, or did not where that is empty.
func addRun(t testing.TB, s *state.Store, kind, undoes string, outcome state.Status) *state.RunDir {
	t.Helper()
	d, err := s.NewRun()
	must(t, err)
	j, err := state.Create(d.Path, nil)
	must(t, err)
	defer j.Close()
	must(t, j.Append(&state.Record{Kind: state.RunCreated, Data: raw(t, state.Created{Type: kind, Undoes: undoes, Hosts: []string{"web1"}})}))
	appendNotes(t, j, 3)
	if outcome != "" {
		must(t, j.Append(&state.Record{Kind: state.RunFinished, Data: raw(t, state.Finished{Outcome: outcome})}))
	}
	return d
}

func TestStoreIsTheOwnersOnly(t *testing.T) {
	s := store(t)
	if want := filepath.Join(os.Getenv("XDG_STATE_HOME"), "deployer", "web-0a1b2c3d"); s.Path != want {
		t.Fatalf("it is at %s", s.Path)
	}
	d := addRun(t, s, "deploy", "", "")
	for _, path := range []string{s.Path, filepath.Dir(s.Path), d.Path, d.OutputDir()} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s is %o", path, info.Mode().Perm())
		}
	}
}

func TestStoreFallsBackToHome(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_STATE_HOME", "relative/is/ignored")
	s, err := state.OpenStore("../evil")
	must(t, err)
	if s.Path != filepath.Join(home, ".local/state/deployer/evil") {
		t.Fatal(s.Path)
	}
}

func TestProjectKeyTellsSameNamesApart(t *testing.T) {
	a, b := state.ProjectKey("/srv/a/my infra"), state.ProjectKey("/srv/b/my infra")
	if a == b || !strings.HasPrefix(a, "my-infra-") || len(a) != len("my-infra-")+8 {
		t.Fatal(a, b)
	}
	if root := state.ProjectKey("/"); !strings.HasPrefix(root, "unnamed-") {
		t.Fatal(root)
	}
}

func TestIDsSortByTimeAndWithinAMillisecond(t *testing.T) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, state.ForTestNewID(epoch.AddDate(100, 0, i/100)))
	}
	ids = append(ids, state.ForTestNewID(epoch)) // the clock goes back
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) || len(ids[0]) != 18 {
		t.Fatal(ids[:3])
	}
}

func TestRunsAreListedNewestFirst(t *testing.T) {
	s := store(t)
	old := addRun(t, s, "deploy", "", state.Succeeded)
	dead := addRun(t, s, "deploy", "", "")
	empty, err := s.NewRun() // killed before it had a journal
	must(t, err)
	must(t, os.Mkdir(filepath.Join(s.Path, "something-else"), 0o700))
	runs, err := s.Runs()
	must(t, err)
	var got []string
	for _, r := range runs {
		recs, _, _ := state.Read(r.Path)
		got = append(got, r.ID+" "+string(state.Derive(state.Fold(recs), r.Live())))
	}
	want := []string{empty.ID + " interrupted", dead.ID + " interrupted", old.ID + " succeeded"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestFind(t *testing.T) {
	s := store(t)
	if _, err := s.Find("last"); err == nil || !strings.Contains(err.Error(), "deployer run") {
		t.Fatal(err)
	}
	a, b := addRun(t, s, "deploy", "", ""), addRun(t, s, "deploy", "", "")
	for given, want := range map[string]string{"last": b.ID, a.ID: a.ID, strings.ToUpper(b.ID): b.ID} {
		if got, err := s.Find(given); err != nil || got.ID != want {
			t.Errorf("%s: %v, %v", given, got, err)
		}
	}
	for _, given := range []string{"", a.ID[:4], "zzz"} {
		_, err := s.Find(given)
		if err == nil || !strings.Contains(err.Error(), a.ID) || !strings.Contains(err.Error(), b.ID) {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func TestLastGoodIsNotUndone(t *testing.T) {
	s := store(t)
	if d, err := s.LastGood(); d != nil || err != nil {
		t.Fatal(d, err)
	}
	first := addRun(t, s, "deploy", "", state.Succeeded)
	second := addRun(t, s, "deploy", "", state.Succeeded)
	addRun(t, s, "deploy", "", state.RolledBack)
	third := addRun(t, s, "deploy", "", state.Succeeded)
	addRun(t, s, "rollback", third.ID, state.Succeeded)
	addRun(t, s, "rollback", second.ID, state.Stuck)
	if d, err := s.LastGood(); err != nil || d.ID != second.ID {
		t.Fatal(d, err)
	}
	addRun(t, s, "rollback", second.ID, state.Succeeded)
	if d, err := s.LastGood(); err != nil || d.ID != first.ID {
		t.Fatal(d, err)
	}
}

func TestSecondProcessIsRefusedByTheLease(t *testing.T) {
	d := addRun(t, store(t), "deploy", "", "")
	if d.Live() {
		t.Fatal("live before anybody took it")
	}
	lease, err := d.Lease(false)
	must(t, err)
	var held *state.Held
	if _, err := d.Lease(false); !errors.As(err, &held) || held.Owner.PID != os.Getpid() || held.Owner.Since.IsZero() {
		t.Fatalf("second lease: %v, %+v", err, held)
	}
	if !d.Live() || !strings.Contains(held.Error(), "take run "+d.ID) {
		t.Fatal(held)
	}
	must(t, lease.Release())
	if d.Live() {
		t.Fatal("live after release")
	}
	lease, err = d.Lease(false)
	must(t, err)
	must(t, lease.Release())
}

// Looking whether a run is live takes its lock for a moment: nobody may be
// refused for that.
func TestLookingDoesNotRefuseALease(t *testing.T) {
	d := addRun(t, store(t), "deploy", "", "")
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				d.Live()
			}
		}
	}()
	defer close(stop)
	for range 50 {
		lease, err := d.Lease(false)
		must(t, err)
		must(t, lease.Release())
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plan.json")
	must(t, os.WriteFile(path, []byte("old and longer"), 0o644))
	must(t, state.WriteFile(path, []byte("new")))
	data, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	left, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if string(data) != "new" || info.Mode().Perm() != 0o600 || len(left) != 1 {
		t.Fatalf("%q, %v, %v", data, info.Mode(), left)
	}
	if err := state.WriteFile(filepath.Join(path, "x"), nil); err == nil || !strings.HasPrefix(err.Error(), "cannot write") {
		t.Fatal(err)
	}
}

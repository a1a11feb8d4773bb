package state_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/state"
)

var update = flag.Bool("update", false, "write run.json of the fixtures anew; journals are never rewritten")

// TestJournalsOfEveryVersionStayReadable folds what released versions wrote.
func TestJournalsOfEveryVersionStayReadable(t *testing.T) {
	dirs, err := filepath.Glob("testdata/v*")
	must(t, err)
	if len(dirs) < state.Schema {
		t.Fatalf("only %v for schema %d", dirs, state.Schema)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			recs, damage, err := state.Read(dir)
			if err != nil || damage != nil {
				t.Fatal(damage, err)
			}
			got, err := json.MarshalIndent(state.Fold(recs), "", "  ")
			must(t, err)
			golden := filepath.Join(dir, "run.json")
			if *update {
				must(t, os.WriteFile(golden, append(got, '\n'), 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// TestTodaysJournalIsTheFixture notices a change of the format: that needs a
// new Schema and a fixture of its own.
func TestTodaysJournalIsTheFixture(t *testing.T) {
	d := &state.RunDir{ID: "06f9x2k4m0q7r8s9ta", Path: filepath.Join(t.TempDir(), "06f9x2k4m0q7r8s9ta")}
	must(t, os.Mkdir(d.Path, 0o700))
	var ticks atomic.Int64
	defer state.ForTestClock(func() time.Time { return epoch.Add(time.Duration(ticks.Add(1)) * 1500 * time.Millisecond) })()
	lease := hold(t, d, false)
	j, err := state.Create(d.Path, lease)
	must(t, err)
	records := story(t)
	for _, rec := range records[:10] {
		must(t, j.Append(&rec))
	}
	must(t, j.Close())
	j, _ = goOn(t, d, true)
	more := takeover(t)
	for _, rec := range slices.Concat(more[:3], records[10:17], more[3:], records[17:]) {
		must(t, j.Append(&rec))
	}
	for _, name := range []string{"journal.jsonl", "journal-2.jsonl"} {
		checkFixture(t, filepath.Join("testdata/v2", name), filepath.Join(d.Path, name))
	}
}

func checkFixture(t *testing.T, fixture, path string) {
	got, err := os.ReadFile(path)
	must(t, err)
	if _, err := os.Stat(fixture); *update && os.IsNotExist(err) {
		must(t, os.MkdirAll(filepath.Dir(fixture), 0o755))
		must(t, os.WriteFile(fixture, got, 0o644))
	}
	want, err := os.ReadFile(fixture)
	must(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Fatal(diff)
	}
}

// takeover is what a second controller adds: it begins in the middle of an
// activation, and claims the guard's decision before it restores.
func takeover(t *testing.T) []state.Record {
	return []state.Record{
		{Kind: state.LeaseAcquired, Data: raw(t, state.Acquired{Epoch: 2, Holder: "jo@desk", Reason: "mo's laptop is asleep", Hosts: map[string]uint64{"web1": 12}})},
		{Kind: state.GuardArmed, Host: "web1", Text: "fires at 22:10"},
		{Kind: state.StepResolved, Host: "web1", Phase: "switch", Step: "activate", Attempt: 1, Data: raw(t, state.Resolved{
			Method: "probe", Verdict: "not-applied", Evidence: json.RawMessage(`{"system":"/nix/store/old-system"}`)})},
		{Kind: state.GuardDecided, Host: "web1", Data: raw(t, state.Decided{Decision: "restoring", By: "controller", Round: 1})},
	}
}

// story is a run that fails in validation and restores its host.
func story(t *testing.T) []state.Record {
	step := func(kind state.Kind, phase, key, text string, v any) state.Record {
		rec := state.Record{Kind: kind, Host: "web1", Phase: phase, Step: key, Attempt: 1, Text: text}
		if v != nil {
			rec.Data = raw(t, v)
		}
		return rec
	}
	to := func(kind state.Kind, host string, s state.Status) state.Record {
		return state.Record{Kind: kind, Host: host, Data: raw(t, state.Moved{To: s})}
	}
	snapshot := state.Intent{Op: "06f9x2k4m0q7r8s9ta.web1.snapshot.1", Class: "idempotent", Undo: json.RawMessage(`{"ops":[{"delete-snapshot":"/.snapshots/06f9"}]}`)}
	activate := state.Intent{Op: "06f9x2k4m0q7r8s9ta.web1.activate.1", Class: "probe", Undo: json.RawMessage(`{"ops":[{"activate":"/nix/store/old-system"}]}`)}
	failed := step(state.StepFailed, "validate", "http", "GET / answers 502", nil)
	failed.Reason, failed.Hint, failed.Elapsed = "502 is not 200", []string{"deployer logs web1 nginx"}, 30.25
	return []state.Record{
		{Kind: state.RunCreated, Text: "production to 1 host", Data: raw(t, state.Created{
			Type: "deploy", Runbook: "production", Plan: "sha256-abc", Revision: "3f2a", Version: "0.1.0",
			Vars: map[string]string{"tier": "gold"}, Hosts: []string{"web1", "db1"}, By: "mo@desk", Reason: "<monthly> & more",
		})},
		{Kind: state.Decision, Phase: "approval", Text: "approved by jo@desk"},
		to(state.RunState, "", state.Preparing),
		{Kind: state.PhaseStarted, Phase: "backup"},
		step(state.StepIntent, "backup", "snapshot", "snapshot of /", snapshot),
		step(state.StepDone, "backup", "snapshot", "", map[string]string{"uuid": "1-2-3"}),
		{Kind: state.PhaseFinished, Phase: "backup", Elapsed: 4.5},
		to(state.RunState, "", state.Changing), to(state.LaneState, "web1", state.Changing),
		step(state.StepIntent, "switch", "activate", "activate the new system", activate),
		step(state.StepRetry, "switch", "activate", "another switch holds the lock", nil),
		{Kind: state.StepIntent, Host: "web1", Phase: "switch", Step: "activate", Attempt: 2, Data: raw(t, activate)},
		{Kind: state.StepDone, Host: "web1", Phase: "switch", Step: "activate", Attempt: 2, Elapsed: 12},
		{Kind: state.Repaired, Text: "unfinished last record set aside into journal.torn-1", Data: raw(t, state.Torn{File: "journal.torn-1"})},
		step(state.StepIntent, "validate", "http", "GET /", state.Intent{Class: "read"}), failed,
		{Kind: state.Check, Host: "web1", Phase: "validate", Step: "http", Text: "502", Data: raw(t, map[string]any{"ok": false})},
		to(state.RunState, "", state.Restoring),
		step(state.UndoIntent, "switch", "activate", "activate the old system", nil),
		step(state.UndoDone, "switch", "activate", "", nil),
		{Kind: state.Notified, Text: "chat"}, {Kind: state.Note, Text: "keeps the snapshot"},
		{Kind: state.RunFinished, Elapsed: 70, Data: raw(t, state.Finished{
			Outcome: state.RolledBack, Exit: 20,
			Lanes:   map[string]state.Status{"web1": state.Restored, "db1": state.Untouched},
			Systems: map[string]string{"web1": "/nix/store/old-system"},
		})},
	}
}

package state_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/state"
)

func diffRuns(a, b *state.Run) string {
	return cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(state.Run{}))
}

var kinds = []state.Kind{
	state.RunCreated, state.RunState, state.RunFinished, state.PhaseStarted, state.PhaseFinished,
	state.StepIntent, state.StepDone, state.StepFailed, state.StepSkipped, state.StepWaiting, state.StepRetry,
	state.LaneState, state.UndoIntent, state.UndoDone, state.UndoFailed, state.Decision,
	state.Check, state.Notified, state.NotifyFailed, state.Repaired, state.Note,
	state.StepResolved, state.LeaseAcquired, state.GuardArmed, state.GuardDecided,
}

// anyData is data of any kind: also of the wrong one.
func anyData(t *rapid.T) json.RawMessage {
	status := rapid.SampledFrom([]state.Status{
		"", state.Waiting, state.Changing, state.Restoring, state.Stuck,
		state.OutOfReach, state.Restored, state.Interrupted, "of-a-later-version",
	}).Draw(t, "status")
	class := rapid.SampledFrom([]string{"read", "probe", "notify", ""}).Draw(t, "class")
	b, _ := json.Marshal(rapid.SampledFrom([]any{
		nil, "text", state.Moved{To: status}, state.Intent{Class: class, Undo: json.RawMessage(`{"op":1}`)},
		state.Finished{Outcome: status, Exit: 20, Lanes: map[string]state.Status{"web1": status}},
		state.Created{Type: "deploy", Hosts: []string{"web1", "db1"}},
		state.Resolved{Verdict: rapid.SampledFrom([]string{"applied", "not-applied", "partial", "of-later"}).Draw(t, "verdict")},
		state.Acquired{Epoch: 2, Hosts: map[string]uint64{"web1": 7}}, state.Decided{Decision: "confirmed"},
	}).Draw(t, "data"))
	return b
}

func anyRecord(t *rapid.T, run string, seq int) state.Record {
	return state.Record{
		V: state.Schema, Seq: uint64(seq), Run: run, Time: epoch.Add(time.Duration(seq) * time.Second),
		Kind:    rapid.SampledFrom(kinds).Draw(t, "kind"),
		Host:    rapid.SampledFrom([]string{"", "web1", "db1"}).Draw(t, "host"),
		Phase:   rapid.SampledFrom([]string{"backup", "switch"}).Draw(t, "phase"),
		Step:    rapid.SampledFrom([]string{"a", "b"}).Draw(t, "step"),
		Attempt: rapid.IntRange(0, 3).Draw(t, "attempt"),
		Reason:  rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"),
		Data:    anyData(t),
	}
}

func anyRecords(t *rapid.T, run string) []state.Record {
	recs := make([]state.Record, rapid.IntRange(0, 40).Draw(t, "n"))
	for i := range recs {
		recs[i] = anyRecord(t, run, i+1)
	}
	return recs
}

func TestFoldInPartsIsFoldOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := anyRecords(t, runID)
		at := rapid.IntRange(0, len(recs)).Draw(t, "at")
		run := state.Fold(recs[:at])
		if rapid.Bool().Draw(t, "stored") { // what a --json reader would go on with
			b, _ := json.Marshal(run)
			run = &state.Run{}
			_ = json.Unmarshal(b, run)
		}
		for _, rec := range recs[at:] {
			state.Apply(run, rec)
			state.Apply(run, rec) // seen twice is seen once
		}
		if diff := diffRuns(state.Fold(recs), run); diff != "" {
			t.Fatal(diff)
		}
	})
}

// What was live saw progress and kinds of a later version; a replay does not.
func TestLiveIsReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := anyRecords(t, runID)
		live := &state.Run{Status: state.Planned}
		for _, rec := range recs {
			shown := anyRecord(t, runID, 0)
			shown.Kind = rapid.SampledFrom([]state.Kind{state.StepProgress, "of.a.later.version"}).Draw(t, "shown")
			state.Apply(live, shown)
			state.Apply(live, rec)
		}
		replay := state.Fold(recs)
		if diff := diffRuns(replay, live); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestInterleavedRunsDoNotInfluenceEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyRecords(t, "run-a"), anyRecords(t, "run-b")
		if len(a) == 0 {
			return
		}
		mixed := []state.Record{a[0]}
		for i := range max(len(a), len(b)) {
			if i > 0 && i < len(a) {
				mixed = append(mixed, a[i])
			}
			if i < len(b) {
				mixed = append(mixed, b[i])
			}
		}
		if diff := diffRuns(state.Fold(a), state.Fold(mixed)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestFinishedRunAbsorbs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := state.Record{Run: runID, Seq: 1, Time: epoch, Kind: state.RunFinished}
		end.Data, _ = json.Marshal(state.Finished{Outcome: state.Succeeded})
		want := state.Fold([]state.Record{end})
		run := state.Fold([]state.Record{end})
		for i := range 10 {
			state.Apply(run, anyRecord(t, runID, i+2))
		}
		if diff := diffRuns(want, run); diff != "" || !run.Finished() {
			t.Fatal(diff)
		}
	})
}

// script folds short records: kind, host and attempt of one step.
func script(t *testing.T, recs ...state.Record) *state.Run {
	t.Helper()
	for i := range recs {
		recs[i].Run, recs[i].Seq, recs[i].Time = runID, uint64(i+1), epoch.Add(time.Duration(i)*time.Second)
		if recs[i].Step == "" {
			recs[i].Step, recs[i].Phase, recs[i].Host = "activate", "switch", "web1"
		}
	}
	return state.Fold(recs)
}

func TestStepGoesThroughItsStates(t *testing.T) {
	type r = state.Record
	cases := map[state.StepStatus][]r{
		state.StatusIntended:   {{Kind: state.StepIntent}},
		state.StatusDone:       {{Kind: state.StepIntent}, {Kind: state.StepDone}, {Kind: state.StepFailed}, {Kind: state.StepIntent}},
		state.StatusFailed:     {{Kind: state.StepIntent, Attempt: 1}, {Kind: state.StepFailed, Attempt: 1}, {Kind: state.StepDone, Attempt: 1}},
		state.StatusPending:    {{Kind: state.StepIntent, Attempt: 1}, {Kind: state.StepRetry, Attempt: 1}},
		state.StatusWaiting:    {{Kind: state.StepIntent, Attempt: 1}, {Kind: state.StepFailed, Attempt: 1}, {Kind: state.StepIntent, Attempt: 2}, {Kind: state.StepWaiting, Attempt: 2}},
		state.StatusSkipped:    {{Kind: state.StepSkipped}},
		state.StatusUndoing:    {{Kind: state.StepIntent}, {Kind: state.UndoIntent}, {Kind: state.StepDone}},
		state.StatusUndone:     {{Kind: state.StepDone}, {Kind: state.UndoIntent}, {Kind: state.UndoDone}, {Kind: state.UndoFailed}, {Kind: state.StepDone}},
		state.StatusUndoFailed: {{Kind: state.StepDone}, {Kind: state.UndoIntent}, {Kind: state.UndoFailed}},
	}
	for want, recs := range cases {
		t.Run(string(want), func(t *testing.T) {
			if got := script(t, recs...).Step("web1", "activate").Status; got != want {
				t.Fatalf("it is %s", got)
			}
		})
	}
}

func TestInDoubtIsDerived(t *testing.T) {
	run := script(t,
		state.Record{Kind: state.StepIntent, Step: "b", Host: "web1"},
		state.Record{Kind: state.StepIntent, Step: "a", Host: "db1"},
		state.Record{Kind: state.StepIntent, Step: "c"}, state.Record{Kind: state.StepDone, Step: "c"},
		state.Record{Kind: state.StepDone, Step: "d"}, state.Record{Kind: state.UndoIntent, Step: "d"},
	)
	if got := run.InDoubt(true); len(got) != 0 {
		t.Fatalf("in doubt while live: %v", got)
	}
	var keys string
	for _, s := range run.InDoubt(false) {
		keys += s.Key
	}
	if keys != "dba" { // d was never intended here: its undo was
		t.Fatalf("in doubt: %s", keys)
	}
}

func TestDerive(t *testing.T) {
	to := func(s state.Status) state.Record {
		return state.Record{Kind: state.RunState, Data: raw(t, state.Moved{To: s})}
	}
	end := func(s state.Status) state.Record {
		return state.Record{Kind: state.RunFinished, Data: raw(t, state.Finished{Outcome: s})}
	}
	cases := []struct {
		recs       []state.Record
		live, dead state.Status
	}{
		{nil, state.Planned, state.Interrupted},
		{[]state.Record{to(state.Changing)}, state.Changing, state.Interrupted},
		{[]state.Record{to(state.Waiting)}, state.Waiting, state.Waiting},
		{[]state.Record{to(state.Interrupted)}, state.Planned, state.Interrupted},
		{[]state.Record{end(state.Succeeded)}, state.Succeeded, state.Succeeded},
		{[]state.Record{end(state.Stuck)}, state.Stuck, state.Stuck},
		{[]state.Record{end(state.Stuck), to(state.Restoring)}, state.Restoring, state.Interrupted},
		{[]state.Record{end(state.OutOfReach), to(state.Restoring), end(state.RolledBack)}, state.RolledBack, state.RolledBack},
	}
	for i, c := range cases {
		run := script(t, c.recs...)
		if live, dead := state.Derive(run, true), state.Derive(run, false); live != c.live || dead != c.dead {
			t.Errorf("%d: live %s, dead %s", i, live, dead)
		}
	}
}

func TestWaitingRunNeedsNoProcess(t *testing.T) {
	run := script(t,
		state.Record{Kind: state.RunState, Reason: "the window opens at 22:00", Data: raw(t, state.Moved{To: state.Waiting})},
		state.Record{Kind: state.Note},
	)
	if run.Waits != "the window opens at 22:00" || state.Derive(run, false) != state.Waiting || run.Finished() {
		t.Fatalf("%+v", run)
	}
}

func TestStepInDoubtIsResolved(t *testing.T) {
	cases := map[string]state.StepStatus{"applied": state.StatusDone, "not-applied": state.StatusPending, "partial": state.StatusFailed, "of-later": state.StatusIntended}
	for verdict, want := range cases {
		verdict := raw(t, state.Resolved{Method: "probe", Verdict: verdict, Evidence: json.RawMessage(`{"system":"/nix/store/x"}`)})
		recs := []state.Record{{Kind: state.StepIntent, Attempt: 1}, {Kind: state.StepResolved, Attempt: 1, Data: verdict}}
		s := script(t, recs...).Step("web1", "activate")
		if s.Status != want || want != state.StatusIntended && string(s.Facts) != `{"system":"/nix/store/x"}` {
			t.Errorf("%s: %+v", verdict, s)
		}
		again := script(t, append(recs, state.Record{Kind: state.StepIntent, Attempt: 2}, state.Record{Kind: state.StepDone, Attempt: 2}, recs[1])...)
		if s := again.Step("web1", "activate"); want == state.StatusPending && (s.Status != state.StatusDone || s.Attempt != 2) {
			t.Errorf("%s, then again: %+v", verdict, s)
		}
	}
}

func TestLaneKnowsItsEpochAndItsGuardsDecision(t *testing.T) {
	acquired := func(epoch, host uint64) state.Record {
		return state.Record{Kind: state.LeaseAcquired, Data: raw(t, state.Acquired{Epoch: epoch, Holder: "mo@desk", Hosts: map[string]uint64{"web1": host}})}
	}
	decided := state.Record{Kind: state.GuardDecided, Data: raw(t, state.Decided{Decision: "confirmed", By: "controller", Round: 1})}
	recs := []state.Record{acquired(1, 7), {Kind: state.GuardArmed}, decided, acquired(3, 9), acquired(2, 8)}
	run := script(t, recs...)
	if want := (state.Lane{Decision: "confirmed", Epoch: 9}); run.Epoch != 3 || run.Lanes["web1"] != want {
		t.Fatalf("%d, %+v", run.Epoch, run.Lanes)
	}
	run = script(t, append(recs, state.Record{Kind: state.GuardArmed})...)
	if got := run.Lanes["web1"].Decision; got != "" {
		t.Fatalf("a new round is decided: %s", got)
	}
}

func TestChangedIsAnyIntentThatMayChangeAHost(t *testing.T) {
	for class, want := range map[string]bool{"read": false, "notify": false, "probe": true, "once": true, "unheard-of": true} {
		in := raw(t, state.Intent{Class: class})
		on := script(t, state.Record{Kind: state.StepIntent, Data: in})
		off := script(t, state.Record{Kind: state.StepIntent, Data: in, Step: "local"})
		if on.Changed != want || off.Changed {
			t.Errorf("%s: %v on a host, %v on none", class, on.Changed, off.Changed)
		}
	}
}

func TestPhaseEndsAsItsStepsAre(t *testing.T) {
	end := state.Record{Kind: state.PhaseFinished, Phase: "switch", Step: "-"}
	for want, kind := range map[state.StepStatus]state.Kind{
		state.StatusDone: state.StepDone, state.StatusFailed: state.StepFailed, state.StatusRunning: state.StepIntent,
		state.StatusSkipped: state.StepSkipped, state.StatusWaiting: state.StepWaiting,
	} {
		run := script(t, state.Record{Kind: kind}, end)
		if got := run.Phases[0].Status; got != want {
			t.Errorf("%s: phase is %s", kind, got)
		}
	}
}

// long is a run of n records: 50 hosts with 100 steps each, again and again.
func long(n int) []state.Record {
	recs := make([]state.Record, 0, n)
	for i := 0; len(recs) < n; i++ {
		rec := state.Record{
			V: state.Schema, Run: runID, Epoch: 1, Time: epoch, Host: fmt.Sprint("web", i%50),
			Phase: fmt.Sprint(i / 50 % 10), Step: fmt.Sprint(i / 50 % 100), Attempt: i/5000 + 1,
		}
		for _, kind := range []state.Kind{state.StepIntent, state.StepDone} {
			rec.Kind, rec.Seq, rec.Data = kind, uint64(len(recs)+1), json.RawMessage(`{"op":"run.web1.a.1","class":"probe","undo":{"ops":[1,2]}}`)
			recs = append(recs, rec)
		}
	}
	return recs
}

func BenchmarkFold(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			recs := long(n)
			for b.Loop() {
				state.Fold(recs)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
}

// BenchmarkReadAndFold compares with reading and hashing the same bytes.
func BenchmarkReadAndFold(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := plant(b, state.ForTestEncode(long(n)))
			for b.Loop() {
				recs, damage, err := state.Read(dir)
				if err != nil || damage != nil || state.Fold(recs).Seq != uint64(n) {
					b.Fatal(damage, err)
				}
			}
			took := b.Elapsed() / time.Duration(b.N)
			start := time.Now()
			for range b.N {
				sha256.Sum256(readJournal(b, dir))
			}
			b.ReportMetric(float64(took)/float64(time.Since(start)/time.Duration(b.N)), "x-hash")
			b.ReportMetric(float64(took.Nanoseconds())/float64(n), "ns/record")
		})
	}
}

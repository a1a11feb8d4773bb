package phases_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// order is the order of a recipe, said a second time.
var order = []string{agent.DoStopJob, agent.DoData, agent.DoWriteFile, agent.DoActivate, agent.DoStart, agent.DoUnits, agent.DoProfile, agent.DoBoot, agent.DoUnpin}

// genSteps makes up to eight steps on up to three hosts and the controller.
func genSteps(t *rapid.T) string {
	var words []string
	for i := range rapid.IntRange(0, 8).Draw(t, "steps") {
		host := rapid.SampledFrom([]string{"", "@h1", "@h2", "@h3"}).Draw(t, "host")
		var flags []string
		if host != "" && rapid.Bool().Draw(t, "undo") {
			flags = append(flags, "undo="+rapid.SampledFrom(order).Draw(t, "kind"))
		}
		ends := []string{"", "", "", "", "skip", "needless", "retry=1", "wait=2", "fail", "panic", "stop", "cancel", "nointent", "nodone"}
		if host != "" {
			ends = append(ends, "cut", "die", "away", "stuck", "nostore")
		}
		if end := rapid.SampledFrom(ends).Draw(t, "end"); end != "" {
			flags = append(flags, end)
		}
		words = append(words, fmt.Sprintf("s%d%s:%s", i, host, strings.Join(flags, ",")))
	}
	return strings.Join(words, " ")
}

// properties runs many made-up runs and asks check about each.
func properties(t *testing.T, check func(t *rapid.T, r *rig, o *phases.Outcome)) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := genSteps(rt)
		var r *rig
		var o *phases.Outcome
		synctest.Test(t, func(t *testing.T) {
			r = newRig(t, steps)
			_, o = r.execute()
		})
		rt.Log(steps, "→", r.told(o))
		check(rt, r, o)
	})
}

// On every host the undo is the reverse of what was done there, within the order
// of recipes; and hosts go back in the reverse of their own order.
func TestUndoIsTheReverseOfDo(t *testing.T) {
	properties(t, func(t *rapid.T, r *rig, o *phases.Outcome) {
		if o.Exit == phases.ExitOK || o.Exit == phases.ExitInterrupted {
			return
		}
		var want []string
		for _, l := range slices.Backward(r.run.Lanes) {
			if l.Status == state.OutOfReach { // nothing can be undone there
				continue
			}
			for _, kind := range order {
				want = append(want, armed(r, l.Name, kind)...)
			}
		}
		var got []string
		for word := range strings.FieldsSeq(r.trace.String()) {
			if strings.HasPrefix(word, "~") {
				got = append(got, strings.Trim(word, "~!"))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("undone %v, want %v", got, want)
		}
	})
}

// armed are the steps of a host whose effect may have been had, with an undo of
// a kind, the last one first.
func armed(r *rig, host, kind string) []string {
	var names []string
	for _, s := range r.run.Phases[0].Steps {
		s := s.(*step)
		if s.Lane == host && s.flags["undo"] == kind && slices.Contains(r.events, fmt.Sprintf("effect p/%s@%s 1", s.name, host)) {
			names = append(names, s.name)
		}
	}
	slices.Reverse(names)
	return names
}

// Before a step has its effect, its intent is journalled, and its undo is on the
// host: strictly before.
func TestIntentAndUndoComeBeforeTheEffect(t *testing.T) {
	properties(t, func(t *rapid.T, r *rig, _ *phases.Outcome) {
		seen := map[string]bool{}
		for _, e := range r.events {
			seen[e] = true
			key, ok := strings.CutPrefix(e, "effect ")
			if !ok {
				continue
			}
			if !seen["intent "+key] {
				t.Errorf("%s without an intent: %v", e, r.events)
			}
			s := r.run.Phases[0].Steps[int(key[3]-'0')].(*step)
			if s.has("undo") && !seen["stored "+s.name+"@"+s.Lane] {
				t.Errorf("%s without its undo on the host: %v", e, r.events)
			}
		}
	})
}

// What a reader finds in the journal is what the process said in the end, and
// no step is left in doubt by a process that lives.
func TestReplayEqualsLive(t *testing.T) {
	properties(t, func(t *rapid.T, r *rig, o *phases.Outcome) {
		checkJournal(t, r)
		if r.journal.broken != nil {
			return
		}
		run := state.Fold(r.journal.records())
		if o.Exit == phases.ExitInterrupted { // saved, not ended
			if run.Finished() || state.Derive(run, false) != state.Interrupted {
				t.Errorf("replayed as %s", run.Outcome)
			}
			return
		}
		if run.Outcome != o.Status || run.Exit == nil || *run.Exit != o.Exit {
			t.Errorf("replayed as %s, it was %s (%d)", run.Outcome, o.Status, o.Exit)
		}
		lanes := map[string]state.Status{}
		for host, l := range run.Lanes {
			lanes[host] = l.Status
			if l.System != o.Systems[host] {
				t.Errorf("%s replays on %q, it was %q", host, l.System, o.Systems[host])
			}
		}
		if !maps.Equal(lanes, o.Lanes) {
			t.Errorf("lanes replay as %v, they were %v", lanes, o.Lanes)
		}
	})
}

// Promises 9 and 11: a lane ends old, new, or says that it is neither; a run
// that went back is never exit 0.
func TestEveryRunEndsByTheTable(t *testing.T) {
	properties(t, func(t *rapid.T, r *rig, o *phases.Outcome) {
		ends := map[state.Status]int{}
		for host, s := range o.Lanes {
			ends[s]++
			w := r.machines[host]
			if w != nil && s == state.Untouched && len(w.World().Recipe.Operations) > 0 && o.Exit == 0 {
				t.Errorf("%s is untouched, but has a recipe", host)
			}
		}
		switch {
		case ends[state.Stuck] > 0 && o.Exit != phases.ExitStuck,
			ends[state.Stuck] == 0 && ends[state.OutOfReach] > 0 && o.Exit != phases.ExitUnknown,
			ends[state.Restored] > 0 && o.Exit == phases.ExitOK,
			ends[state.Committed] > 0 && o.Exit != phases.ExitOK,
			o.Exit != phases.ExitOK && o.Failure == nil,
			o.Exit == phases.ExitOK && o.Failure != nil,
			o.Exit == phases.ExitStuck && len(o.Remains) == 0,
			o.Exit == phases.ExitUnknown && len(o.Remains) == 0:
			t.Errorf("exit %d with lanes %v, failure %v, remains %q", o.Exit, o.Lanes, o.Failure, o.Remains)
		}
	})
}

// Compose keeps the order of recipes, and equal kinds the last one first.
func TestComposeKeepsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var recipe []agent.Operation
		n := rapid.IntRange(0, 12).Draw(t, "operations")
		for i := range n {
			op := agent.Operation{Op: rapid.SampledFrom(order).Draw(t, "kind"), Generation: i}
			recipe = phases.Compose(recipe, []agent.Operation{op})
		}
		if len(recipe) != n {
			t.Fatalf("%d of %d operations", len(recipe), n)
		}
		for i := 1; i < n; i++ {
			a, b := recipe[i-1], recipe[i]
			x, y := slices.Index(order, a.Op), slices.Index(order, b.Op)
			if x > y || x == y && a.Generation < b.Generation {
				t.Errorf("%s %d before %s %d", a.Op, a.Generation, b.Op, b.Generation)
			}
		}
	})
}

// A run that was stopped anywhere and is resumed ends as if it had not been
// stopped; what changed a host is not done twice.
func TestResumedEndsAsIfItHadNotBeenStopped(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := genSteps(rt)
		if strings.Contains(steps, "nointent") || strings.Contains(steps, "nodone") || strings.Contains(steps, "away") {
			return // a journal or a host that is gone for good
		}
		var first, resumed, whole *phases.Outcome
		var second *rig
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, steps)
			if _, first = r.execute(); first.Exit != phases.ExitInterrupted {
				return
			}
			second = r.again(t, steps)
			if err := second.run.Seize(t.Context(), second.runner.Log, 0, false); err != nil {
				t.Fatal(err)
			}
			resumed = second.runner.Resume(t.Context())
			_, whole = newRig(t, uninterrupted.ReplaceAllString(steps, "")).execute()
		})
		if resumed == nil {
			return
		}
		rt.Log(steps, "→", second.told(resumed))
		if resumed.Exit != whole.Exit || !maps.Equal(resumed.Lanes, whole.Lanes) {
			rt.Errorf("resumed: exit %d, %v; not stopped: exit %d, %v", resumed.Exit, resumed.Lanes, whole.Exit, whole.Lanes)
		}
		had := map[string]int{}
		for _, e := range second.events {
			if key, ok := strings.CutPrefix(e, "effect "); ok && strings.Contains(e, "@") {
				had[key]++
			}
		}
		for _, s := range second.run.Phases[0].Steps {
			s := s.(*step)
			key := fmt.Sprintf("p/%s@%s 1", s.name, s.Lane)
			if s.has("undo") && !s.has("retry") && !s.has("wait") && !s.has("skip") && had[key] > 1 {
				rt.Errorf("%s was done %d times", key, had[key])
			}
		}
	})
}

package simulation

import (
	"path"
	"runtime"
	"strings"
	"testing"
)

// site is the function of the agent that asks for a primitive.
func site() string {
	pcs := make([]uintptr, 20)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if _, name, ok := strings.Cut(f.Function, "/phases/agent."); ok {
			return strings.NewReplacer("(*", "", ")", "").Replace(name)
		}
		if !more {
			return "nowhere"
		}
	}
}

// syncs passes a sync by; false: a mutation leaves it out.
func (w *world) syncs(what, name string) bool {
	if w.drop == "" {
		return true
	}
	label := what + " in " + site()
	if what == "sync" || what == "syncdir" {
		label += " of " + path.Base(nameless(name))
	}
	return !strings.HasPrefix(label, w.drop)
}

// The mutants: each leaves out one fsync, one check of the epoch, or one check
// of the decision, and must be seen to. Two syncs are not here: without that in
// remove a lease or a root that is not needed comes back; that in pin is for the
// first run of a host, when there is no folder of roots.
var mutants = []struct{ drop, lax string }{
	{drop: "sync in content.create"},         // what is in a file of the agent
	{drop: "sync in store.extend"},           // the lane's journal
	{drop: "syncdir in replace"},             // a file's name
	{drop: "syncdir in store.settle"},        // a folder's name
	{drop: "syncdir in agent.nixEnv"},        // the profile's links
	{drop: "btrfs sync"},                     // a snapshot
	{drop: "journal sync"},                   // the controller's
	{lax: "serve epoch"}, {lax: "job epoch"}, // who is asked for something, who does it
	{lax: "serve decision"}, {lax: "job decision"},
}

// TestMutants is the test of the tests.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.drop+m.lax, func(t *testing.T) {
			t.Parallel()
			mutate := func(w *world) { w.drop, w.lax = m.drop, m.lax }
			played := 0
			for _, s := range scenarios[:2] {
				base := play(t, s, resume, func(w *world) { mutate(w); recording(w) })
				for _, plan := range (classes{}).unlike(nil, base.found) {
					if m.lax == "job epoch" { // it is taken over from while the job has not begun
						plan = append(plan, crash{at: plan[0].host + " link: reply job.start #1", what: "pause"})
					}
					if k := plan[0]; m.lax == "job epoch" && k.what != "stall" || (k.cut == nothing) != (m.drop != "") || k.what != "power" && k.what != "pause" && k.what != "sleep" && k.what != "stall" && k.cut == "" {
						continue
					}
					played++
					if r := play(t, s, resume, mutate, plan...); len(r.wrong) > 0 {
						t.Logf("dead after %d worlds: %s", played, r)
						return
					}
				}
			}
			t.Errorf("lives after %d worlds", played)
		})
	}
}

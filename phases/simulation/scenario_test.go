package simulation

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// scenario is one story, before anything is killed.
type scenario struct {
	name       string
	staging    behaviour
	production behaviour
	abortAt    string // the point at which the operator stops
}

var scenarios = []*scenario{
	{name: "success"},
	{name: "failing validation", production: behaviour{sick: true}},
	{name: "failing activation", production: behaviour{breaks: true}},
	{name: "failing undo", production: behaviour{sick: true, stuck: true}},
	{name: "operator abort", abortAt: "controller: journal step.intent validate/contact@production #1"},
}

func newWorld(s *scenario, plan []crash) *world {
	dir, err := os.MkdirTemp("/dev/shm", "sim-")
	check(err)
	w := &world{dir: dir, scenario: s, count: map[string]int{}, plan: plan}
	w.machines = []*machine{newMachine(w, "staging", dir+"/staging", s.staging), newMachine(w, "production", dir+"/production", s.production)}
	return w
}

func TestBaseline(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(s, nil)
				defer os.RemoveAll(w.dir)
				o := w.start().execute()
				if o != nil {
					t.Logf("exit %d %v %v", o.Exit, o.Failure, o.Lanes)
				}
				for _, m := range w.machines {
					t.Logf("%s: runs %s, boots %s, mixed %q", m.name, m.readlink("/run/current-system"), m.entrySystem(m.defaultEntry()), m.mixed)
				}
				w.end()
				t.Log(w.wrong, len(w.trace))
				for _, l := range w.logs {
					t.Log(l)
				}
				if testing.Verbose() && s.name == "success" {
					for _, p := range w.trace {
						t.Log(p)
					}
				}
			})
			t.Log(time.Since(start))
		})
	}
}

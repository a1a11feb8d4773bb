package simulation

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// story plays a scenario to its end: the run, and recovery as often as it takes.
func (w *world) story() *phases.Outcome {
	o := w.start().execute()
	for range 8 {
		if o != nil && o.Exit != phases.ExitUnknown && o.Exit != phases.ExitInterrupted {
			break
		}
		w.controller().kill("") // or it has ended by itself
		time.Sleep(20 * time.Second)
		o = w.start().recover()
	}
	return o
}

// settles is the time after which no host does anything by itself any more.
const settles = time.Hour

// result is what became of one world.
type result struct {
	plan   []crash
	exit   int
	hosts  map[string]string // old, new, or what it is between
	wrong  []string
	trace  []string
	logs   []string
	missed bool // a point was never passed
	found  []candidate
	sites  map[string]int
}

func play(t *testing.T, s *scenario, plan ...crash) (r result) { return playWith(t, s, nil, plan) }

func playWith(t *testing.T, s *scenario, prepare func(*world), plan []crash) (r result) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(s, plan)
		defer os.RemoveAll(w.dir)
		if prepare != nil {
			prepare(w)
		}
		o := w.story()
		w.controller().kill("") // it has ended
		time.Sleep(settles)
		r = w.judge(o)
		r.plan = plan
		w.end()
	})
	return r
}

// is tells what a host is.
func (m *machine) is() string {
	what := func(top string) string {
		switch top {
		case oldSystem:
			return "old"
		case newSystem:
			return "new"
		}
		return fmt.Sprintf("%q", top)
	}
	runs, profile, boots := what(m.readlink("/run/current-system")), what(m.resolveProfile()), what(m.entrySystem(m.defaultEntry()))
	switch {
	case m.mixed != "":
		return "between, " + m.mixed
	case m.oneShot(false) != "":
		return "about to boot " + m.oneShot(false)
	case runs == profile && profile == boots:
		return runs
	}
	return fmt.Sprintf("between: runs %s, profile %s, boots %s", runs, profile, boots)
}

func (m *machine) resolveProfile() string {
	return m.readlink("/nix/var/nix/profiles/" + m.readlink("/nix/var/nix/profiles/system"))
}

// judge is the oracle.
func (w *world) judge(o *phases.Outcome) result {
	r := result{hosts: map[string]string{}}
	if o == nil {
		w.fail("the run never came to an end")
		o = &phases.Outcome{Exit: -1}
	}
	r.exit = o.Exit
	for _, m := range w.machines {
		is := m.is()
		r.hosts[m.name] = is
		switch status := o.Lanes[m.name]; {
		case status == state.Stuck && o.Exit == phases.ExitStuck, status == state.OutOfReach && o.Exit == phases.ExitUnknown:
		case is != "old" && is != "new":
			w.fail("%s is %s, and the run ended with %d", m.name, is, o.Exit)
		case status == state.Committed && is != "new", status == state.Restored && is != "old", status == state.Untouched && is != "old":
			w.fail("%s is %s, but the run says %s", m.name, is, status)
		case o.Exit == phases.ExitOK && o.Status == state.Succeeded && is != "new":
			w.fail("%s is %s, and the run succeeded", m.name, is)
		}
	}
	w.agrees(o)
	r.missed = len(w.plan) > 0
	r.wrong, r.trace, r.logs, r.found, r.sites = w.wrong, w.trace, w.logs, w.found, w.sites
	return r
}

// agrees compares the outcome with the record.
func (w *world) agrees(o *phases.Outcome) {
	row, ok := w.past()
	if !ok || row.Exit == nil || w.tries > 0 {
		return
	}
	if *row.Exit != o.Exit {
		w.fail("the journal says exit %d, the outcome %d", *row.Exit, o.Exit)
	}
	for name, lane := range o.Lanes {
		if row.Lanes[name].Status != lane {
			w.fail("the journal says that %s is %s, the outcome %s", name, row.Lanes[name].Status, lane)
		}
	}
}

func (r result) String() string {
	var b strings.Builder
	for _, k := range r.plan {
		fmt.Fprintf(&b, "  killed: %s\n", k)
	}
	fmt.Fprintf(&b, "  exit %d, hosts %v\n", r.exit, r.hosts)
	for _, x := range r.wrong {
		fmt.Fprintf(&b, "  WRONG: %s\n", x)
	}
	for _, l := range r.logs {
		fmt.Fprintf(&b, "    %s\n", l)
	}
	return b.String()
}

package simulation

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

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
}

func play(t *testing.T, s *scenario, how recovery, prepare func(*world), plan ...crash) (r result) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(s, plan)
		defer os.RemoveAll(w.dir)
		if prepare != nil {
			prepare(w)
		}
		o := w.story(how)
		w.controller().kill("") // it has ended
		time.Sleep(settles)
		w.checkOld()
		r = w.judge(o, how)
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
func (w *world) judge(o *phases.Outcome, how recovery) result {
	r := result{hosts: map[string]string{}, exit: -1, missed: len(w.plan) > 0}
	for _, m := range w.machines {
		r.hosts[m.name] = m.is()
		m.remembers()
	}
	w.remembers()
	switch {
	case o != nil:
		r.exit = o.Exit
		if o.Failure != nil {
			w.logf("%v", o.Failure)
		}
		w.asSaid(o, r.hosts)
		w.agrees(o)
	case how == nobody:
		w.leftAlone()
	default:
		w.fail("the run never came to an end")
	}
	r.wrong, r.trace, r.logs, r.found = w.wrong, w.trace, w.logs, w.found
	return r
}

// asSaid compares the hosts with what the run says of them.
func (w *world) asSaid(o *phases.Outcome, hosts map[string]string) {
	for name, is := range hosts {
		switch status := o.Lanes[name]; {
		case status == state.Stuck && o.Exit == phases.ExitStuck && w.machine(name).behave.stuck, status == state.OutOfReach && o.Exit == phases.ExitUnknown:
		case status == state.Stuck && w.stalled: // it may have been too late
		case status == state.Stuck:
			w.fail("%s is stuck, and is %s, though it could go back", name, is)
		case is != "old" && is != "new":
			w.fail("%s is %s, and the run ended with %d", name, is, o.Exit)
		case status == state.Committed && is != "new", status == state.Restored && is != "old", status == state.Untouched && is != "old":
			w.fail("%s is %s, but the run says %s", name, is, status)
		case o.Status == state.Succeeded && is != "new":
			w.fail("%s is %s, and the run succeeded", name, is)
		}
	}
	if exits[o.Status] != nil && !slices.Contains(exits[o.Status], o.Exit) {
		w.fail("exit %d, but the run is %s", o.Exit, o.Status)
	}
}

// exits are those that an outcome may have.
var exits = map[state.Status][]int{
	state.Succeeded: {0, 26}, state.RolledBack: {0, 20, 22}, state.ByHost: {0, 21}, state.Stuck: {30}, state.OutOfReach: {31},
}

// leftAlone is the oracle of hosts that nobody comes back to: what was decided
// is what they are, without a decision they are old.
func (w *world) leftAlone() {
	for _, m := range w.machines {
		want := "old"
		if m.decided("confirmed") && !m.decided("restoring") {
			want = "new"
		}
		if is := m.is(); is != want && !m.behave.stuck {
			w.fail("%s is %s, left alone it should be %s", m.name, is, want)
		}
	}
}

// agrees compares the outcome with the record.
func (w *world) agrees(o *phases.Outcome) {
	row := w.past()
	if row == nil || row.Exit == nil || w.tries > 0 {
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

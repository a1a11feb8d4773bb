package simulation

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// recovery is what becomes of a run whose controller is gone.
type recovery string

const (
	resume   recovery = "resume"
	rollback recovery = "rollback"
	nobody   recovery = "nobody" // the hosts are left to their guards
)

func failed(err error) *phases.Outcome {
	f := phases.AsFailure(err)
	return &phases.Outcome{Exit: f.Exit, Failure: f}
}

// past is what the record of the run says; nil: there is none.
func (w *world) past() *state.Run {
	recs, damage, err := state.Read(w.runDir(runID).Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	check(err)
	if damage != nil {
		w.fail("the journal is damaged: %v", damage)
	}
	return state.Fold(recs)
}

// recover is what a person does about a run that did not come to its end.
func (c *controller) recover(how recovery) *phases.Outcome {
	row := c.w.past()
	switch {
	case row == nil || len(row.Hosts) == 0: // nothing was recorded, so nothing was done
		return &phases.Outcome{Exit: phases.ExitFailed, Status: state.Failed}
	case row.Exit != nil && *row.Exit != phases.ExitUnknown:
		o := &phases.Outcome{Exit: *row.Exit, Status: row.Outcome, Lanes: map[string]state.Status{}}
		for name, l := range row.Lanes {
			o.Lanes[name] = l.Status
		}
		c.takesOver()
		return o
	case row.Exit != nil || how == rollback:
		return c.rollback(row)
	}
	return c.resume(row)
}

// resume is `deployer resume --take-over`.
func (c *controller) resume(row *state.Run) *phases.Outcome {
	r := c.run()
	r.ID, r.Dir = row.ID, c.w.runDir(row.ID)
	r.Plan = c.w.plan0
	lease, err := r.Dir.Lease(true)
	if err != nil {
		return failed(err)
	}
	if err := c.hasLease(lease); err != nil {
		return failed(err)
	}
	if err := r.Seize(c.ctx, &phases.Log{}, lease.Epoch(), true); err != nil {
		c.w.logf("seize: %v", err)
		return &phases.Outcome{Exit: phases.ExitInterrupted}
	}
	c.takesOver()
	j, told, err := state.Open(r.Dir.Path, lease)
	if err != nil {
		return failed(err)
	}
	log := &phases.Log{Run: r.ID, Journal: c.wrap(j)}
	runner := &phases.Runner{Run: r, Log: log, Told: told, Stop: c.stop}
	if err := runner.Again(c.ctx, lease.Epoch()); err != nil {
		return failed(err)
	}
	return runner.Resume(c.ctx)
}

// takesOver is when one goes on that this one has taken over from.
func (c *controller) takesOver() {
	for _, old := range c.w.old {
		old.wake()
	}
}

// rollback is `deployer rollback RUN`.
func (c *controller) rollback(row *state.Run) *phases.Outcome {
	r := c.run()
	r = &phases.Run{Type: "rollback", Undoes: row.ID, Project: r.Project, Runbook: &runbooks.Runbook{Name: row.Runbook}, Tools: r.Tools}
	for _, name := range row.Hosts {
		if s := row.Lanes[name].Status; s == state.Untouched || s == state.Restored {
			continue
		}
		l := phases.NewLane(r.Project.Hosts[name], r.Agents)
		err := r.Recall(c.ctx, l, row.ID, &phases.Log{})
		if phases.NoRecipe(err) {
			continue
		}
		if err != nil {
			c.w.logf("recall: %v", err)
			return &phases.Outcome{Exit: phases.ExitInterrupted}
		}
		r.Lanes = append(r.Lanes, l)
	}
	if len(r.Lanes) == 0 {
		return &phases.Outcome{Exit: phases.ExitFailed, Status: state.Failed}
	}
	c.w.tries++
	log := c.open(r, fmt.Sprint("rollback", c.w.tries))
	c.takesOver()
	return (&phases.Runner{Run: r, Log: log}).Restore(c.ctx)
}

// open are the exit codes of a process that are not the end of its run.
var open = []int{phases.ExitUnknown, phases.ExitInterrupted, phases.ExitFenced, phases.ExitRefused}

// story plays a scenario to its end: the run, and recovery as often as it takes.
func (w *world) story(how recovery) *phases.Outcome {
	c := w.start()
	o := c.does(c.execute)
	for range 60 {
		refused := w.tries > 0 && o != nil && o.Status == state.Failed // a rollback that has not begun
		if o != nil && !slices.Contains(open, o.Exit) && !refused || how == nobody {
			return o
		}
		if c.isPaused() && w.past() != nil && len(w.past().Hosts) > 0 {
			w.old = append(w.old, c)
			time.Sleep(2 * time.Second)
		} else {
			c.kill("") // or it has ended by itself
			time.Sleep(20 * time.Second)
		}
		c = w.start()
		o = c.does(func() *phases.Outcome { return c.recover(how) })
	}
	return o
}

// checkOld looks at what became of controllers that were paused, and went on
// as soon as another one had taken over.
func (w *world) checkOld() {
	for _, old := range w.old {
		w.mu.Lock()
		o := old.out
		w.mu.Unlock()
		switch {
		case o == nil && old.alive() == nil:
			w.fail("the controller that was taken over from goes on for ever")
		case o != nil && o.Status == state.Succeeded && w.past().Outcome != state.Succeeded:
			w.fail("the controller that was taken over from says that all went well")
		}
		old.kill("")
	}
}

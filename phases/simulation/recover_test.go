package simulation

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// past is what the record of the run says; false: there is none.
func (w *world) past() (*state.Run, bool) {
	recs, damage, err := state.Read(filepath.Join(w.dir, "store", runID))
	if errors.Is(err, os.ErrNotExist) {
		return nil, false
	}
	check(err)
	if damage != nil {
		w.fail("the journal is damaged: %v", damage)
	}
	return state.Fold(recs), true
}

// recover is what a person does about a run that did not come to its end.
func (c *controller) recover() *phases.Outcome {
	row, ok := c.w.past()
	if !ok {
		return &phases.Outcome{Exit: phases.ExitFailed}
	}
	done := make(chan *phases.Outcome, 1)
	go func() { done <- c.rollback(row) }()
	select {
	case o := <-done:
		return o
	case <-c.killed:
		return nil
	}
}

func (c *controller) rollback(row *state.Run) *phases.Outcome {
	r := c.run()
	r = &phases.Run{Type: "rollback", Undoes: row.ID, Project: r.Project, Runbook: &runbooks.Runbook{Name: row.Runbook}, Tools: r.Tools}
	for _, name := range row.Hosts {
		status := row.Lanes[name].Status
		if status == state.Untouched || status == state.Restored {
			continue
		}
		l := phases.NewLane(r.Project.Hosts[name], r.Agents)
		var err error
		for range 60 {
			if err = r.Recall(c.ctx, l, row.ID, &phases.Log{}); err == nil || phases.NoRecipe(err) {
				break
			}
			time.Sleep(time.Second)
		}
		if phases.NoRecipe(err) {
			continue
		}
		if err != nil {
			c.w.logf("recall: %v", err)
			return &phases.Outcome{Exit: phases.ExitUnknown}
		}
		r.Lanes = append(r.Lanes, l)
	}
	if len(r.Lanes) == 0 {
		return &phases.Outcome{Exit: phases.ExitFailed}
	}
	c.w.tries++
	runner := &phases.Runner{Run: r, Log: c.openAs(r, "rollback"+string(rune('0'+c.w.tries)))}
	return runner.Restore(c.ctx)
}

package phases_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/state"
)

// confirming arms the guard, commits the profile and confirms.
type confirming struct{ phases.On }

func (confirming) Name() string { return "confirm" }

func (confirming) Undo(context.Context, *phases.Env) ([]agent.Operation, error) {
	return []agent.Operation{{Op: agent.DoProfile, System: phasetest.Old, Generation: 7}}, nil
}

func (confirming) Do(ctx context.Context, env *phases.Env) error {
	if _, err := env.Lane.Arm(ctx, agent.Arming{Run: env.ID}); err != nil {
		return err
	}
	_, err := env.Lane.Confirm(ctx, env.ID)
	return err
}

// Whose confirmation got no answer may stay as it is: nobody is told that the
// host goes back by itself.
func TestALostConfirmationPromisesNoWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo")
		m := r.machines["h1"]
		m.Handle(agent.OpConfirm, func(json.RawMessage) (any, error) {
			m.Away(&host.Error{Kind: host.Timeout, Err: errors.New("nothing answers")})
			return nil, phasetest.ErrDie
		})
		r.run.Phases[0].Steps = append(r.run.Phases[0].Steps, confirming{phases.On{Lane: "h1", Kind: phases.Idempotent}})
		_, o := r.execute()
		if o.Exit != phases.ExitUnknown || strings.Contains(strings.Join(o.Remains, " "), "by itself") || len(o.Remains) == 0 {
			t.Errorf("exit %d, remains %q", o.Exit, o.Remains)
		}
	})
}

// A link that goes for a moment while the host is told does not make a good run go back.
func TestAConfirmationIsAskedForUntilItIsAnswered(t *testing.T) {
	for name, decided := range map[string]bool{"the question is lost": false, "the answer is lost": true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a@h1:undo")
			m := r.machines["h1"]
			once(m, agent.OpConfirm, func(args json.RawMessage) (any, error) {
				if decided {
					_, _ = m.Default(agent.OpConfirm, args)
				}
				m.Away(&host.Error{Kind: host.Timeout, Err: errors.New("nothing answers")})
				time.AfterFunc(15*time.Second, func() { m.Away(nil) })
				return nil, phasetest.ErrDie
			})
			r.run.Phases[0].Steps = append(r.run.Phases[0].Steps, confirming{phases.On{Lane: "h1", Kind: phases.Idempotent}})
			if _, o := r.execute(); o.Exit != phases.ExitOK {
				t.Errorf("%s: exit %d, remains %q", name, o.Exit, o.Remains)
			}
		})
	}
}

// A lock that could not be taken away is not said to be gone.
func TestUnlockNamesOnlyWhatItFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1 b@h2")
		for _, m := range r.machines {
			m.Handle(agent.OpLane, func(json.RawMessage) (any, error) { return agent.Lane{Holder: agent.Holder{Run: "r1"}}, nil })
		}
		r.machines["h1"].Handle(agent.OpUnlock, func(json.RawMessage) (any, error) {
			return nil, &agent.Error{Code: "internal", Message: "read-only file system"}
		})
		freed, err := r.run.Unlock(r.ctx, "r1", "x")
		if !slices.Equal(freed, []string{"h2"}) || err == nil {
			t.Errorf("freed %v, %v", freed, err)
		}
	})
}

// An interrupt in the midst of a rollback left restored hosts as stuck.
func TestAnInterruptDoesNotStopARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rollback(t, "h1", "h2")
		m := r.machines["h2"]
		once(m, agent.OpRestore, func(args json.RawMessage) (any, error) {
			r.cancel()
			return m.Default(agent.OpRestore, args)
		})
		if _, o := r.restore(); o.Exit != phases.ExitOK || o.Lanes["h1"] != state.Restored {
			t.Errorf("exit %d, %v", o.Exit, o.Lanes)
		}
	})
}

// A rollback that could not have every host gives back those that it had.
func TestARefusedRollbackKeepsNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rollback(t, "h1", "h2")
		r.machines["h1"].Handle(agent.OpLock, func(json.RawMessage) (any, error) { return nil, &agent.Error{Code: "locked", Message: "no"} })
		if got, o := r.restore(); o.Exit != phases.ExitWaiting || !strings.Contains(got, "unlock") {
			t.Errorf("exit %d: %s", o.Exit, got)
		}
	})
}

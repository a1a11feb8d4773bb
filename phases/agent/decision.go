package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

func decisionFile(run string, round int) string {
	return runFile(run, fmt.Sprintf("decision-%d.json", round))
}

// decide makes the decision of a round, or learns what it was: exactly one
// process ever creates the file.
func (a *agent) decide(s *store, run string, round int, what, by string) (Decision, error) {
	d := Decision{Round: round, Decision: what, By: by, Epoch: heldBy(s).Epoch, BootID: a.bootID(), Time: time.Now().UTC()}
	err := s.createJSON(decisionFile(run, round), d)
	if errors.Is(err, fs.ErrExist) {
		err = s.readJSON(decisionFile(run, round), &d)
	}
	return d, err
}

func decisionOf(s *store, run string, round int) *Decision {
	return load[Decision](s, decisionFile(run, round))
}

// closingOf is how a lane ended, nil if it has not, or was taken up again since.
func closingOf(s *store, run string) *Closing {
	c := load[Closing](s, runFile(run, "closing.json"))
	if c != nil && max(c.Round, 1) < roundOf(s, run) {
		return nil
	}
	return c
}

func guardOf(s *store, run string) *Guard { return load[Guard](s, runFile(run, "guard.json")) }

func roundOf(s *store, run string) int {
	if g := guardOf(s, run); g != nil {
		return g.Round
	}
	return 1
}

func load[T any](s *store, name string) *T {
	v := new(T)
	if s.readJSON(name, v) != nil {
		return nil
	}
	return v
}

// confirm ends a round well, unless somebody decided to go back before.
func (a *agent) confirm(_ context.Context, ref RunRef) (Decision, error) {
	s, err := a.runStore(ref.Run)
	if err != nil {
		return Decision{}, err
	}
	d, err := a.decide(s, ref.Run, roundOf(s, ref.Run), Confirmed, ByController)
	if err == nil && d.Decision != Confirmed {
		err = &Error{Code: Restoring, Message: fmt.Sprintf("too late: the %s decided at %s to go back", d.By, d.Time.Format(time.TimeOnly))}
	}
	return d, err
}

// claimed is how long a controller that claims a restore has for it, before the
// watcher goes on with it.
const claimed = 2 * time.Minute

// claim decides to go back. What was confirmed is undone in a round of its own.
func (a *agent) claim(s *store, run, by string) (Guard, Decision, error) {
	g := Guard{Arming: Arming{Run: run}, Round: 1, BootID: a.bootID(), Armed: a.uptime()}
	if was := guardOf(s, run); was != nil {
		g = *was
	}
	d, err := a.decide(s, run, g.Round, Restoring, by)
	if err == nil && d.Decision == Confirmed {
		g.Round, g.Tries = g.Round+1, 0
		d, err = a.decide(s, run, g.Round, Restoring, by)
	}
	if err != nil || d.By == ByGuard {
		return g, d, err
	}
	g.BootID, g.Claim, g.Announced = a.bootID(), a.uptime()+claimed.Seconds(), 0
	return g, d, s.writeJSON(runFile(run, "guard.json"), g)
}

// lane tells what the host knows of a run.
func (a *agent) lane(ctx context.Context, args LaneArgs) (Lane, error) {
	if err := checkName("run", args.Run); err != nil {
		return Lane{}, err
	}
	s, err := a.store(false)
	if errors.Is(err, fs.ErrNotExist) {
		return Lane{Run: args.Run}, nil
	}
	if err != nil {
		return Lane{}, err
	}
	l := a.laneOf(ctx, s, args.Run)
	if args.Plan {
		l.Plan, _ = s.read(runFile(args.Run, planFile))
	}
	return l, nil
}

func (a *agent) laneOf(ctx context.Context, s *store, run string) Lane {
	l := Lane{Run: run, Holder: heldBy(s), Recipe: s.exists(runFile(run, "recipe.json")), Guard: guardOf(s, run), Closing: closingOf(s, run)}
	l.Holder.Live = a.live(s, l.Holder)
	round := roundOf(s, run)
	l.Decision = decisionOf(s, run, round)
	if l.Guard != nil {
		l.Watching = s.held(runFile(run, "guard.alive"))
		l.Guard.Left = l.Guard.Deadline - a.uptime()
	}
	if n := lastRestore(s, run); n > 0 {
		if r, err := a.receipt(ctx, s, restoreUnit(run, n)); err == nil && r.Round == round {
			l.Restore = &r
		}
	}
	return l
}

func (a *agent) lanes(ctx context.Context, _ none) ([]Lane, error) {
	list := []Lane{}
	s, err := a.store(false)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	runs, err := s.names("runs")
	for _, run := range slices.Backward(runs) {
		list = append(list, a.laneOf(ctx, s, run))
	}
	return list, err
}

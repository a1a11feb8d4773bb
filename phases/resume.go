package phases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/state"
)

// Seize makes this process the only writer of a run on its hosts, above every
// epoch that any of them saw. What an older controller still sends is refused
// from then on. A host on which that one is connected is only seized if it is
// to be taken over; one that the run has not come to may be somebody else's.
func (r *Run) Seize(ctx context.Context, log *Log, atLeast uint64, takeOver bool) error {
	r.log = log
	if err := r.reach(ctx); err != nil {
		return err
	}
	lanes := slices.DeleteFunc(slices.Clone(r.Lanes), func(l *Lane) bool { return l.Locked })
	for _, l := range lanes {
		seen, err := l.known(ctx, r.subject())
		if err != nil {
			return err
		}
		if h := seen.Holder; h.Run == r.subject() && h.Live && !takeOver {
			return &Failure{Exit: ExitWaiting, Host: l.Name, Err: fmt.Errorf("%s works on run %s on %s, since %s", h.Owner, h.Run, l.Name, h.Since.Format(time.RFC3339)),
				Hint: []string{"# to take over from it: --take-over"}}
		}
		atLeast = max(atLeast, seen.Holder.Epoch+1)
	}
	args := agent.LockArgs{Run: r.subject(), Owner: r.Owner, Reason: "resume", AtLeast: atLeast, Take: true, Plan: r.planned()}
	for _, l := range lanes {
		if err := l.seize(ctx, args); err != nil {
			return err
		}
	}
	return nil
}

// seize takes the lock of a host again, and learns from it how things stand.
func (l *Lane) seize(ctx context.Context, args agent.LockArgs) error {
	run := args.Run
	mine, err := l.known(ctx, run)
	if err != nil {
		return err
	}
	args.Force = mine.Recipe
	err = l.register(ctx, args)
	var ae *agent.Error
	if errors.As(err, &ae) && !mine.Recipe && ae.Code != "fenced" { // not changed by this run: its lock step will say who has it
		return nil
	}
	if err == nil {
		l.Kept, err = l.known(ctx, run)
	}
	if err != nil || !l.Kept.Recipe {
		return err
	}
	if g := l.Kept.Guard; g != nil && l.Kept.Watching && l.Kept.Decision == nil {
		l.guarded = time.Now().Add(time.Duration(g.Left * float64(time.Second)))
	}
	err = l.Call(ctx, agent.OpRecipeGet, agent.RunRef{Run: run}, &l.Recipe)
	l.Before = l.Recipe.Before
	return err
}

// known is what the host knows of a run.
func (l *Lane) known(ctx context.Context, run string) (agent.Lane, error) {
	var seen agent.Lane
	err := l.Call(ctx, agent.OpLane, agent.LaneArgs{Run: run}, &seen)
	return seen, err
}

// Kept are the records of a run and its plan, as its hosts kept them.
func (r *Run) Kept(ctx context.Context, run string) (map[string][][]byte, []byte, error) {
	kept := map[string][][]byte{}
	var plan []byte
	for _, l := range r.Lanes {
		var seen agent.Lane
		if err := l.Call(ctx, agent.OpLane, agent.LaneArgs{Run: run, Plan: true}, &seen); err != nil {
			return nil, nil, err
		}
		if len(seen.Plan) > 0 {
			plan = seen.Plan
		}
		lines, err := l.records(ctx, run)
		if err != nil {
			return nil, nil, err
		}
		kept[l.Name] = lines
	}
	return kept, plan, nil
}

func (l *Lane) records(ctx context.Context, run string) (lines [][]byte, err error) {
	for args := (agent.RecordsArgs{Run: run}); ; {
		var part agent.RecordsPart
		if err := l.Call(ctx, agent.OpRecords, args, &part); err != nil {
			if NoRecipe(err) {
				return nil, nil
			}
			return nil, err
		}
		for _, line := range part.Lines {
			lines = append(lines, line)
		}
		if args.From = part.Next; part.Next == 0 {
			return lines, nil
		}
	}
}

// Resume goes on with a run that another process left, from what its journal
// and its hosts say. Its lanes must be seized before.
func (r *Runner) Resume(ctx context.Context) *Outcome {
	r.join(ctx)
	if f := r.lost(); f != nil {
		return r.back(context.WithoutCancel(ctx), f)
	}
	return r.execute(ctx)
}

// Abort takes a run back that another process left.
func (r *Runner) Abort(ctx context.Context) *Outcome {
	r.join(ctx)
	return r.back(context.WithoutCancel(ctx), &Failure{Exit: ExitAborted, Err: errAborted})
}

// Restock makes sure that the systems which are still to be copied are on this
// machine: the run may have begun on another. They are made again by the steps
// that planned them, and have to be what was agreed to.
func (r *Run) Restock(ctx context.Context) error {
	for _, phase := range r.Phases {
		for _, s := range phase.Steps {
			l, planner, build := r.lacking(phase.Kind, s)
			if !build {
				continue
			}
			l.To = nix.System{}
			if _, err := planner.Plan(ctx, r.envOf(phase.Name, s)); err != nil {
				return err
			}
			if want := r.Plan.Host(l.Name).To; l.To.Out != want {
				return &Failure{Exit: ExitRefused, Host: l.Name, Err: fmt.Errorf("%s is not on this machine, and the project here makes %s", ShortPath(want), ShortPath(l.To.Out)),
					Safe: "the run stays as it was", Hint: []string{"deployer abort " + r.ID}}
			}
		}
	}
	return nil
}

// lacking finds the lane whose system a step has to make again.
func (r *Run) lacking(kind string, s Step) (*Lane, Planner, bool) {
	l, h := r.LaneOf(HostOf(s)), r.Plan.Host(HostOf(s))
	planner, ok := s.(Planner)
	if kind != "build" || !ok || l == nil || h == nil || h.To == "" || l.Changed() {
		return nil, nil, false
	}
	_, err := os.Stat(h.To)
	return l, planner, err != nil
}

// join takes up what the journal, the plan and the hosts say of the lanes.
func (r *Runner) join(ctx context.Context) {
	r.prior = state.Fold(r.Told)
	r.tell(ctx)
	for _, l := range r.Run.Lanes {
		l.Status = r.prior.Lanes[l.Name].Status
		l.now = l.Seen
		if h := r.Run.Plan.Host(l.Name); h != nil {
			l.Seen = h.From // what it must still be, where nothing was changed
			if l.To.Out == "" {
				l.To.Out = h.To
			}
		}
		l.extend(ctx, r.Run.ID)
	}
}

// Host is a lane of the plan, nil where it has none.
func (p *Plan) Host(name string) *PlanHost {
	if p == nil {
		return nil
	}
	for i := range p.Hosts {
		if p.Hosts[i].Name == name {
			return &p.Hosts[i]
		}
	}
	return nil
}

// lost tells why the run cannot go on, but has to go back: that was decided, by
// a host or before, or a host is not any more what it was made.
func (r *Runner) lost() *Failure {
	for _, l := range r.Run.Lanes {
		if err := r.astray(l); err != nil {
			f := AsFailure(err)
			f.Host = l.Name
			return f
		}
	}
	if slices.Contains([]state.Status{state.Restoring, state.Stuck, state.OutOfReach}, r.prior.Status) {
		return &Failure{Exit: ExitFailed, Err: errors.New("the run was on its way back")}
	}
	return nil
}

// astray tells why a lane cannot go on.
func (r *Runner) astray(l *Lane) error {
	k := l.Kept
	switch {
	case !l.Changed():
		return nil
	case k.Decision != nil && k.Decision.Decision == agent.Restoring:
		return fmt.Errorf("the %s decided at %s to go back", k.Decision.By, k.Decision.Time.Format(time.TimeOnly))
	case k.Closing != nil && k.Closing.Outcome == string(state.Restored):
		return fmt.Errorf("the %s took it back", cmp.Or(k.Closing.By, agent.ByController))
	case k.Decision != nil:
		return nil
	case r.tried(l) && l.now.System != l.To.Out:
		return fmt.Errorf("the host runs %s, not what was being tried: it was rebooted or changed since", ShortPath(l.now.System))
	case k.Guard != nil && !k.Watching:
		return errors.New("the host's guard does not watch any more")
	}
	return nil
}

// tried tells whether the new system was activated.
func (r *Runner) tried(l *Lane) bool {
	for _, phase := range r.Run.Phases {
		for _, s := range phase.Steps {
			st := r.before(s, Key(phase.Name, s))
			tries := ClassOf(s) == Probe || ClassOf(s) == Reboot
			if HostOf(s) == l.Name && tries && st != nil && st.Status == state.StatusDone {
				return true
			}
		}
	}
	return false
}

// Known asks every host which runs it knows.
func (r *Run) Known(ctx context.Context, log *Log) (map[string][]agent.Lane, error) {
	r.log = log
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	known := map[string][]agent.Lane{}
	for _, l := range r.Lanes {
		var lanes []agent.Lane
		if err := l.Call(ctx, agent.OpLanes, nil, &lanes); err != nil {
			return nil, err
		}
		known[l.Name] = lanes
	}
	return known, nil
}

// Again records that this process took the run up, and under which epochs.
func (r *Runner) Again(ctx context.Context, epoch uint64) error {
	r.tell(ctx)
	a := state.Acquired{Epoch: epoch, Holder: r.Run.Owner, Reason: "resume", Hosts: map[string]uint64{}}
	for _, l := range r.Run.Lanes {
		if l.Locked {
			a.Hosts[l.Name] = l.holder.Epoch
		}
	}
	return r.Log.Record(state.Record{Kind: state.LeaseAcquired}, a)
}

func (l *Lane) unlock(ctx context.Context, run, by, reason string) error {
	return l.Call(ctx, agent.OpUnlock, agent.Unlocking{Run: run, By: by, Reason: reason}, nil)
}

// Unlock takes a run's locks away, and names the hosts that had one. A host that
// is out of reach does not keep it from the others.
func (r *Run) Unlock(ctx context.Context, run, reason string) (freed []string, err error) {
	var all *multierror.Error
	for _, l := range r.Lanes {
		var err error
		var seen agent.Lane
		if l.Host == nil {
			err = r.Reach(ctx, l)
		}
		if err == nil {
			seen, err = l.known(ctx, run)
		}
		if err == nil && seen.Holder.Run == run {
			if err = l.unlock(ctx, run, r.Owner, reason); err == nil {
				freed = append(freed, l.Name)
			}
		}
		if err != nil {
			all = multierror.Append(all, err)
		}
	}
	return freed, gather(all.ErrorOrNil())
}

package phases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/state"
)

// lock takes the host's lock for a run and looks at the host again, as root.
func (l *Lane) lock(ctx context.Context, r *Run) error {
	if !l.Locked {
		if err := l.register(ctx, agent.LockArgs{Run: r.ID, Owner: r.Owner, Reason: r.Runbook.Name, Plan: r.planned()}); err != nil {
			return err
		}
	}
	var files []string
	for _, f := range l.Files {
		files = append(files, f.Path)
	}
	return l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true, Files: files}, &l.Before)
}

// planned is the plan as hosts keep it, for whoever goes on with the run.
func (r *Run) planned() []byte {
	if r.Plan == nil {
		return nil
	}
	plan, _ := json.Marshal(r.Plan) // it was written as JSON before
	return plan
}

// LockLane takes a host's lock for a step. Before anything is changed anywhere,
// the other hosts are looked at too: a run that would be refused on its last
// host must not have switched its first.
func (r *Run) LockLane(ctx context.Context, l *Lane) error {
	for _, other := range r.Lanes {
		if other.Locked { // still: who was taken over must not begin with one more host
			if err := other.Call(ctx, agent.OpJournal, nil, nil); err != nil {
				return err
			}
		}
	}
	for _, other := range r.Lanes {
		if other.Changed() {
			break
		}
		if err := r.free(ctx, other); err != nil {
			return err
		}
	}
	return l.lock(ctx, r)
}

// free tells whether a host's lock could be taken. A lane that its record says
// was settled, but whose last word did not reach the host, is closed here.
func (r *Run) free(ctx context.Context, l *Lane) error {
	if l.Locked {
		return nil
	}
	var now agent.Facts
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	if was, failed := now.Rejected[l.To.Out]; failed && !r.Rejected {
		return &Failure{Exit: ExitRefused, Host: l.Name, Err: fmt.Errorf("%s failed on %s before, in run %s: %s", ShortPath(l.To.Out), l.Name, was.Run, was.Reason),
			Hint: []string{"deployer run " + r.Runbook.Name + " --retry-rejected --reason TEXT"}}
	}
	if h := now.Holder; h != nil {
		return &Failure{Exit: ExitWaiting, Host: l.Name, Err: fmt.Errorf("%s is locked by %s for run %s since %s", l.Name, h.Owner, h.Run, h.Since.Format(time.RFC3339)), Hint: []string{"deployer status"}}
	}
	if now.OpenRun == "" {
		return nil
	}
	hint := agent.WaysOut(now.OpenRun)
	if r.Past != nil {
		switch was := r.Past(now.OpenRun, l.Name); was {
		case state.Committed:
			if l.undoing(ctx, now.OpenRun) { // which that record does not know
				hint = []string{"deployer rollback " + now.OpenRun}
				break
			}
			fallthrough
		case state.Restored, state.Untouched:
			return l.settle(ctx, now.OpenRun, r.Owner, was)
		}
	}
	return &Failure{Exit: ExitPrecondition, Host: l.Name, Err: fmt.Errorf("run %s changed %s and was never finished", now.OpenRun, l.Name), Hint: hint}
}

// undoing tells whether the host was told to go back by the last who decided.
func (l *Lane) undoing(ctx context.Context, run string) bool {
	seen, err := l.known(ctx, run)
	return err != nil || seen.Decision != nil && seen.Decision.Decision == agent.Restoring
}

// settle says on the host how an earlier run ended there, which did not reach it
// in time, in that run's name.
func (l *Lane) settle(ctx context.Context, run, owner string, as state.Status) error {
	of := &Lane{Name: l.Name, Host: l.Host, Seen: l.Seen, agents: l.agents, client: l.client}
	if err := of.take(ctx, run, owner, true); err != nil {
		return err
	}
	return of.Call(ctx, agent.OpClose, agent.Closing{Run: run, Outcome: string(as)}, nil)
}

// register takes the lock and keeps its epoch: every write names it from here on.
func (l *Lane) register(ctx context.Context, args agent.LockArgs) error {
	var h agent.Holder
	if err := l.Call(ctx, agent.OpLock, args, &h); err != nil {
		return held(err)
	}
	l.Locked, l.holder = true, args
	l.holder.Epoch, l.holder.Plan = h.Epoch, nil
	return nil
}

// relock says over a new connection that the lock is this controller's.
func (l *Lane) relock(ctx context.Context) error {
	if !l.Locked {
		return nil
	}
	return held(l.Call(ctx, agent.OpLock, l.holder, nil))
}

// take takes the host's lock in the name of a run that is to be undone, also
// where that is another than the one that was left open there.
func (l *Lane) take(ctx context.Context, run, owner string, force bool) error {
	return l.register(ctx, agent.LockArgs{Run: run, Owner: owner, Reason: "rollback", Take: true, Force: force})
}

// takeAsSeen is take for a host that must still run what was shown to whoever
// agreed to the rollback.
func (l *Lane) takeAsSeen(ctx context.Context, r *Run) error {
	if err := l.take(ctx, r.subject(), r.Owner, r.Undoes != ""); err != nil {
		return err
	}
	var now agent.Facts
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	if l.Seen.System != "" && now.System != l.Seen.System {
		return &Failure{Exit: ExitRefused, Err: fmt.Errorf("%s ran %s a moment ago and runs %s now", l.Name, ShortPath(l.Seen.System), ShortPath(now.System))}
	}
	if l.chosen {
		l.Recipe.Run = r.subject()
		return l.Call(ctx, agent.OpRecipePut, l.Recipe, nil)
	}
	return nil
}

// held gives a refused lock its exit code: somebody else's may be waited for,
// a run that was never finished has to be undone first.
func held(err error) error {
	var ae *agent.Error
	if !errors.As(err, &ae) {
		return err
	}
	switch ae.Code {
	case "fenced":
		return &Failure{Exit: ExitFenced, Err: err, Hint: ae.Hint}
	case "locked":
		return &Failure{Exit: ExitWaiting, Err: err, Hint: ae.Hint}
	case "open-run":
		return &Failure{Exit: ExitPrecondition, Err: err, Hint: ae.Hint}
	}
	return err
}

// Arm arms the host's guard and learns until when it waits.
func (l *Lane) Arm(ctx context.Context, args agent.Arming) (agent.Guard, error) {
	var g agent.Guard
	err := l.Call(ctx, agent.OpArm, args, &g)
	if err == nil {
		l.guarded = time.Now().Add(time.Duration(g.Left * float64(time.Second)))
	}
	return g, err
}

// extend gives the guard its whole time again: this controller lives.
func (l *Lane) extend(ctx context.Context, run string) {
	var g agent.Guard
	if !l.guarded.IsZero() && l.Call(ctx, agent.OpExtend, agent.RunRef{Run: run}, &g) == nil {
		l.guarded = time.Now().Add(time.Duration(g.Left * float64(time.Second)))
	}
}

// Confirm decides over a new connection that the host stays as it is. There is one
// decision, however often it is asked for: a link that comes back is waited for. A
// host that refuses connections is not: the way back is still open.
func (l *Lane) Confirm(ctx context.Context, run string) (d agent.Decision, err error) {
	waits := l.guarded
	for deadline := time.Now().Add(patience); ; {
		var j *Lane
		if j, err = l.Judge(ctx); err == nil {
			l.guarded = time.Time{} // from here on nobody knows, unless the host says no
			err = j.Call(ctx, agent.OpConfirm, agent.RunRef{Run: run}, &d)
		}
		var refuses *agent.Error
		var he *host.Error
		switch {
		case errors.As(err, &refuses):
			l.guarded = waits
			return d, err
		case !Passing(err), errors.As(err, &he) && he.Kind == host.Refused, time.Now().After(deadline):
			return d, err
		}
		l.Forget()
		select {
		case <-ctx.Done():
			return d, err
		case <-time.After(time.Second):
		}
	}
}

// ErrNoEnd says that nobody knows how a job ended: it was cut off in the middle.
var ErrNoEnd = errors.New("nobody knows how it ended")

// Do runs a job on the host to its end and returns its receipt and, where it
// failed, what it printed. All of that is kept in the run's folder; the output
// of one that went well is fetched while the next step runs. The job is a unit
// of its own: when the connection goes, it goes on, and is followed over a new one.
func (l *Lane) Do(ctx context.Context, env *Env, job agent.Job) (agent.Receipt, []string, error) {
	var rec agent.Receipt
	if err := l.Call(ctx, agent.OpJobStart, job, &rec); err != nil {
		return rec, nil, err
	}
	for rec.State == "started" {
		rec = agent.Receipt{}
		if err := l.Call(ctx, agent.OpJobWait, agent.JobRef{Unit: job.Unit, Wait: 5 * time.Second}, &rec); err != nil {
			return rec, nil, err
		}
		if rec.State == "started" {
			l.extend(ctx, job.Run)
			l.sayLast(ctx, env, job.Unit)
		}
	}
	if rec.State == "ended" && rec.Code == 0 {
		l.keepLater(env, job.Unit)
		return rec, nil, nil
	}
	out := l.output(ctx, job.Unit)
	env.Keep("output.log", []byte(strings.Join(out, "\n")+"\n"))
	if rec.State != "ended" {
		return rec, out, fmt.Errorf("%w: the host has the start of %s, but not its end", ErrNoEnd, job.Unit)
	}
	return rec, out, nil
}

// keepLater fetches a job's output beside the steps that follow. Drop waits for it.
func (l *Lane) keepLater(env *Env, unit string) {
	own := *env
	c := l.started()
	l.later.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var out agent.Output
		if c.Call(ctx, agent.OpJobOutput, agent.OutputArgs{Unit: unit, Max: 2000}, &out) == nil {
			own.Keep("output.log", []byte(strings.Join(out.Lines, "\n")+"\n"))
		}
	})
}

// output is what a unit printed; what cannot be read is empty.
func (l *Lane) output(ctx context.Context, unit string) []string {
	var out agent.Output
	if err := l.Call(ctx, agent.OpJobOutput, agent.OutputArgs{Unit: unit, Max: 2000}, &out); err != nil {
		return []string{"(its output cannot be read: " + err.Error() + ")"}
	}
	return out.Lines
}

func (l *Lane) sayLast(ctx context.Context, env *Env, unit string) {
	var out agent.Output
	if l.Call(ctx, agent.OpJobOutput, agent.OutputArgs{Unit: unit, Max: 1}, &out) == nil && len(out.Lines) > 0 {
		env.Say(out.Lines[len(out.Lines)-1])
	}
}

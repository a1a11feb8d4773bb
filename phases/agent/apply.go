package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	opDone    = "done"
	opAlready = "already"
	opFailed  = "failed"

	// opLimit bounds one operation, so that one that hangs does not keep a
	// restore from the operations after it.
	opLimit    = 15 * time.Minute
	lockTries  = 3
	lockWaits  = 2 * time.Minute
	switchLock = "/run/nixos/switch-to-configuration.lock"
)

// effect is what a done operation did.
type effect struct {
	already bool
	code    int
	message string
}

// problem is an operation that a program's exit code belongs to.
type problem struct {
	code int
	text string
}

func (p *problem) Error() string { return p.text }

var doers = map[string]func(*agent, context.Context, string, Operation) (effect, error){
	DoStopJob: (*agent).doStopJob, DoActivate: (*agent).doActivate, DoProfile: (*agent).doProfile, DoBoot: (*agent).doBoot,
	DoWriteFile: (*agent).doWriteFile, DoUnits: (*agent).doUnits, DoUnpin: (*agent).doUnpin,
	DoTrial: (*agent).doTrial, DoReboot: (*agent).doReboot, DoData: (*agent).doData, DoStart: (*agent).doStart,
}

// applyNow does one operation for the connection. Those that start programs of
// the system run as a job: a connection that breaks must not break them.
func (a *agent) applyNow(ctx context.Context, op Operation) (Outcome, error) {
	run := a.currentRun()
	if a.direct || !slices.Contains([]string{DoActivate, DoBoot, DoTrial, DoReboot, DoData}, op.Op) {
		return a.apply(context.WithoutCancel(ctx), run, op), nil
	}
	unit := "deployer-" + strings.Trim(run+"-apply-", "-") + "-" + token() + ".service"
	// No decision in its middle; but a reboot that hangs must not keep the guard from one.
	job := Job{Unit: unit, Run: run, Operation: &op, Timeout: opLimit, Commit: op.Op != DoReboot}
	r, err := a.launch(context.WithoutCancel(ctx), job, "job", unit)
	for err == nil && r.State == stateBegun {
		r, err = a.jobWait(ctx, JobRef{Unit: unit, Wait: time.Minute})
	}
	if err != nil {
		return Outcome{}, err
	}
	if len(r.Result) == 0 {
		return Outcome{Op: op, State: opFailed, Unit: unit, Code: r.Code, Message: unit + " was " + r.State + " without a result", Hint: a.hint(run, op)}, nil
	}
	r.Result[0].Unit = unit
	return r.Result[0], nil
}

func (a *agent) currentRun() string {
	if s, err := a.store(false); err == nil {
		return heldBy(s).Run
	}
	return ""
}

func (a *agent) apply(ctx context.Context, run string, op Operation) Outcome {
	start := time.Now()
	out := Outcome{Op: op, State: opDone}
	out.Op.Content = nil
	limit := opLimit
	if op.Op == DoProfile { // nobody can decide while it runs: see agent.pass
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e, err := effect{}, fmt.Errorf("this agent does not know the operation %q", op.Op)
	if do, ok := doers[op.Op]; ok {
		e, err = do(a, ctx, run, op)
	}
	out.Took = time.Since(start).Seconds()
	out.Code, out.Message, out.Hint = e.code, e.message, a.hint(run, op) // of what is left to do
	if e.already {
		out.State = opAlready
	}
	if err != nil {
		out.State, out.Message = opFailed, err.Error()
		var p *problem
		if errors.As(err, &p) {
			out.Code = p.code
		}
		var said *Error
		if errors.As(err, &said) { // what stood in the way comes first
			out.Hint = append(slices.Clone(said.Hint), out.Hint...)
		}
	}
	if op.Op == DoData && op.Data != nil {
		a.became(run, *op.Data, &out)
	}
	return out
}

// became says of a restore-data what it has replaced, or whether it left things
// as they were: from what is on the disk of it.
func (a *agent) became(run string, d Data, out *Outcome) {
	s, err := a.store(false)
	if err != nil {
		return
	}
	file := dataFile(run, d)
	r := load[restoration](s, file)
	switch {
	case out.State == opFailed:
		out.Intact = r != nil && r.State == dataUndone && len(r.Left) == 0 || !s.exists(file)
	case r != nil:
		for _, m := range r.Members {
			if m.Live != 0 {
				out.Kept = append(out.Kept, m.Kept)
			}
		}
		for _, l := range r.Left {
			out.Kept = append(out.Kept, l.UUID)
		}
	}
}

package phases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// handler has the effect of a step. The middlewares wrap one around another;
// from the outside in: explain, skip, again, journal, watch.
type handler func(ctx context.Context, env *Env, s Step) error

func (r *Runner) chain() handler {
	return r.explain(guarded(r.skip(r.again(r.journal(r.watch(guarded(do)))))))
}

func do(ctx context.Context, env *Env, s Step) error { return s.Do(ctx, env) }

// guarded makes a failure of a panic: a bug in a step must not leave hosts as
// they are.
func guarded(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) (err error) {
		defer func() {
			if p := recover(); p != nil {
				stack := strings.Split(strings.TrimSpace(string(debug.Stack())), "\n")
				err = &Failure{Exit: ExitFailed, Err: fmt.Errorf("internal error: the step panicked: %v", p), Output: stack}
			}
		}()
		return next(ctx, env, s)
	}
}

// explain gives every error its place: phase, step, host.
func (r *Runner) explain(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) error {
		err := next(ctx, env, s)
		if err == nil {
			return nil
		}
		f := *AsFailure(err)
		if ctx.Err() != nil { // whatever the step made of it
			f = Failure{Exit: ExitAborted, Err: errAborted}
		}
		if fenced(err) {
			f.Exit = ExitFenced
		}
		if f.Step == "" {
			f.Phase, f.Step, f.Host = env.Phase, s.Name(), HostOf(s)
		}
		var ae *agent.Error
		if len(f.Hint) == 0 && errors.As(err, &ae) {
			f.Hint = ae.Hint
		}
		return &f
	}
}

// skip asks a step first whether it is needed.
func (r *Runner) skip(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) error {
		sk, ok := s.(Skipper)
		if !ok {
			return next(ctx, env, s)
		}
		reason, err := sk.Skip(ctx, env)
		if err != nil {
			return err
		}
		if reason == "" {
			return next(ctx, env, s)
		}
		return r.record(env, state.Record{Kind: state.StepSkipped, Reason: reason}, nil)
	}
}

// tries is how often a step is run that asks to be run again.
const tries = 30

// again runs a step once more when it asks for that, and waits when it has to.
func (r *Runner) again(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) error {
		if err := r.unsure(s, env.Step); err != nil {
			return err
		}
		for env.Attempt = r.attempt(s, env.Step); ; env.Attempt++ {
			err := next(ctx, env, s)
			var retry Retry
			var wait Wait
			pause := time.Duration(0)
			switch {
			case errors.As(err, &retry) && env.Attempt >= tries:
				return fmt.Errorf("%s, still so after %d tries", retry.Reason, tries)
			case errors.As(err, &retry):
				pause = retry.After
			case errors.As(err, &wait) && r.NoWait && !r.undecided():
				return &Failure{Exit: ExitWaiting, Err: errors.New(wait.Reason)}
			case errors.As(err, &wait):
				pause = r.until(wait)
			default:
				return err
			}
			if err := r.pause(ctx, pause); err != nil {
				return err
			}
		}
	}
}

func (r *Runner) until(w Wait) time.Duration {
	if w.Until.IsZero() {
		return time.Minute
	}
	return max(w.Until.Sub(r.now()), time.Second)
}

// pause sleeps, unless the operator wants to stop.
func (r *Runner) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.Stop:
		return &Failure{Exit: ExitInterrupted, Err: errPaused}
	case <-ctx.Done():
	}
	return &Failure{Exit: ExitAborted, Err: errAborted}
}

// journal makes the intent and the undo durable before the effect, here and on
// the host, and the outcome after it.
func (r *Runner) journal(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) error {
		undo, err := undoOf(ctx, env, s)
		if err != nil {
			return err
		}
		if err := r.intend(ctx, env, s, undo); err != nil {
			return err
		}
		start := time.Now()
		err = next(ctx, env, s)
		rec := outcome(err)
		rec.Elapsed = time.Since(start).Seconds()
		if jerr := r.record(env, rec, env.data); jerr != nil && err == nil {
			return fmt.Errorf("the journal cannot be written, so the run stops here: %w", jerr)
		}
		return settled(err)
	}
}

func undoOf(ctx context.Context, env *Env, s Step) ([]agent.Operation, error) {
	u, ok := s.(Undoer)
	if !ok {
		return nil, nil
	}
	return u.Undo(ctx, env)
}

func (r *Runner) intend(ctx context.Context, env *Env, s Step, undo []agent.Operation) error {
	intent := state.Intent{Op: env.Op(), Class: string(ClassOf(s))}
	if len(undo) > 0 {
		b, err := json.Marshal(undo)
		if err != nil {
			return err
		}
		intent.Undo = b
	}
	now := r.now()
	if env.Since.IsZero() {
		env.Since = now
	}
	if err := r.record(env, state.Record{Kind: state.StepIntent, Time: now}, intent); err != nil {
		return fmt.Errorf("the journal cannot be written, so %s was not started: %w", s.Name(), err)
	}
	if len(undo) == 0 || env.Lane == nil {
		return nil
	}
	if err := env.Lane.arm(ctx, r.Run.ID, undo); err != nil {
		err = fmt.Errorf("cannot store the undo on the host, so %s was not started: %w", s.Name(), err)
		_ = r.record(env, outcome(err), nil) // nothing was done: the step is not in doubt
		return err
	}
	r.move(env.Lane, state.Changing)
	return nil
}

// outcome is the record of how a step ended.
func outcome(err error) state.Record {
	var skip Skip
	var retry Retry
	var wait Wait
	switch {
	case err == nil:
		return state.Record{Kind: state.StepDone}
	case errors.As(err, &skip):
		return state.Record{Kind: state.StepSkipped, Reason: string(skip)}
	case errors.As(err, &retry):
		return state.Record{Kind: state.StepRetry, Reason: retry.Reason}
	case errors.As(err, &wait):
		return state.Record{Kind: state.StepWaiting, Reason: wait.Reason}
	}
	return state.Record{Kind: state.StepFailed, Reason: err.Error(), Hint: AsFailure(err).Hint}
}

// settled drops a Skip: it is a result.
func settled(err error) error {
	var skip Skip
	if errors.As(err, &skip) {
		return nil
	}
	return err
}

// heartbeat is how often a step that says nothing is shown to be alive.
const heartbeat = 10 * time.Second

// watch shows what a step says, and that it is alive when it says nothing.
func (r *Runner) watch(next handler) handler {
	return func(ctx context.Context, env *Env, s Step) error {
		start := time.Now()
		env.say = func(text string) { r.progress(env, text, start) }
		r.progress(env, "", start)
		if env.Lane != nil {
			env.Lane.say = func(text string) { env.Note(state.Note, text) }
			defer func() { env.Lane.say = nil }()
		}
		done := make(chan struct{})
		var beating sync.WaitGroup
		defer func() { close(done); beating.Wait() }() // no beat after the outcome
		beating.Go(func() {
			tick := time.NewTicker(heartbeat)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					r.progress(env, "still running", start)
				}
			}
		})
		return next(ctx, env, s)
	}
}

func (r *Runner) progress(env *Env, text string, start time.Time) {
	_ = r.record(env, state.Record{Kind: state.StepProgress, Text: text, Elapsed: time.Since(start).Seconds()}, nil)
}

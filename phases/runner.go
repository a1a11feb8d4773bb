package phases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/state"
)

// Runner walks a run's phases, and walks back when one fails.
type Runner struct {
	Run  *Run
	Log  *Log
	Stop <-chan struct{} // closed: stop after the step that runs now
	// Finish is called with the outcome before it is journalled: notifications.
	Finish func(ctx context.Context, o *Outcome)
}

var errAborted = errors.New("stopped by the operator")

// Outcome is how a run ended.
type Outcome struct {
	Exit    int
	Status  state.Status
	Failure *Failure // nil: none
	Lanes   map[string]state.Status
	Systems map[string]string // host → what it runs now; "" where that is not known
	Remains []string          // commands that a person has to type
	Alerts  []string          // monitor rules that are breached and were not rolled back
}

// Execute runs all phases. It returns when every lane is committed, restored,
// or has to be left to a person.
func (r *Runner) Execute(ctx context.Context) *Outcome {
	r.Run.log = r.Log
	o := &Outcome{Lanes: map[string]state.Status{}, Systems: map[string]string{}}
	if err := r.forward(ctx); err != nil {
		o.Failure = AsFailure(err)
		r.backward(context.WithoutCancel(ctx), o)
	} else {
		r.commit(ctx, o)
	}
	return r.finish(context.WithoutCancel(ctx), o)
}

func (r *Runner) forward(ctx context.Context) error {
	run := r.chain()
	r.state(state.Preparing)
	for _, l := range r.Run.Lanes {
		go func() { _, _ = l.agent(ctx) }() // a step that needs it waits for it, or sees the error again
	}
	for _, phase := range r.Run.Phases {
		start := time.Now()
		if err := r.Log.Record(state.Record{Kind: state.PhaseStarted, Phase: phase.Name, Text: phase.Kind}, nil); err != nil {
			return err
		}
		r.entered(phase.Kind)
		for _, s := range phase.Steps {
			if err := r.stopped(ctx, phase.Kind); err != nil {
				return err
			}
			if err := run(ctx, r.env(phase.Name, s), s); err != nil {
				return err
			}
		}
		rec := state.Record{Kind: state.PhaseFinished, Phase: phase.Name, Elapsed: time.Since(start).Seconds()}
		if err := r.Log.Record(rec, nil); err != nil {
			return err
		}
	}
	return nil
}

// entered records what a phase means for the run as a whole.
func (r *Runner) entered(kind string) {
	switch kind {
	case "validate":
		r.state(state.Validating)
	case "monitor":
		r.state(state.Monitoring)
	}
}

// stopped tells whether the operator or the journal wants an end. A run that
// monitors is committed already: to stop it is to end the watch, not to go back.
func (r *Runner) stopped(ctx context.Context, kind string) error {
	if kind != "monitor" && ended(r.Stop) || ctx.Err() != nil {
		return &Failure{Exit: ExitAborted, Err: errAborted}
	}
	if err := r.Log.Broken(); err != nil {
		return fmt.Errorf("the journal cannot be written, so the run stops here: %w", err)
	}
	return nil
}

func (r *Runner) env(phase string, s Step) *Env {
	env := &Env{Run: r.Run, Phase: phase, Step: Key(phase, s), Stop: r.Stop}
	if h := HostOf(s); h != "" {
		env.Lane = r.Run.LaneOf(h)
	}
	return env
}

func (r *Runner) record(env *Env, rec state.Record, data any) error {
	rec.Phase, rec.Step, rec.Attempt = env.Phase, env.Step, env.Attempt
	if env.Lane != nil {
		rec.Host = env.Lane.Name
	}
	return r.Log.Record(rec, data)
}

func (r *Runner) now() time.Time {
	if r.Run.Now != nil {
		return r.Run.Now()
	}
	return time.Now()
}

// move records that a lane is somewhere else now.
func (r *Runner) move(l *Lane, to state.Status) {
	if l.Status == to {
		return
	}
	_ = r.Log.Record(state.Record{Kind: state.LaneState, Host: l.Name}, state.Moved{From: l.Status, To: to})
	if to == state.Changing && (l.Status == "" || l.Status == state.Untouched) {
		r.state(state.Changing)
	}
	l.Status = to
}

func (r *Runner) state(to state.Status) {
	_ = r.Log.Record(state.Record{Kind: state.RunState}, state.Moved{To: to})
}

// commit closes the lanes of a run that went well: from here on a rollback is
// somebody's decision, by `deployer rollback`.
func (r *Runner) commit(ctx context.Context, o *Outcome) {
	o.Status, o.Exit, o.Alerts = state.Succeeded, ExitOK, r.Run.Alerts
	if len(o.Alerts) > 0 {
		o.Exit = ExitUnhealthy
		o.Failure = &Failure{Exit: ExitUnhealthy, Err: fmt.Errorf("%d monitor rule(s) breached", len(o.Alerts)), Output: o.Alerts, Hint: []string{"deployer rollback " + r.Run.ID}}
	}
	for _, l := range r.Run.Lanes {
		if l.Changed() {
			r.close(ctx, l, state.Committed)
		} else {
			r.close(ctx, l, state.Untouched)
		}
	}
}

func (r *Runner) finish(ctx context.Context, o *Outcome) *Outcome {
	for _, l := range r.Run.Lanes {
		if l.Status == "" {
			l.Status = state.Untouched
		}
		o.Lanes[l.Name] = l.Status
		o.Systems[l.Name] = running(l)
	}
	if r.Finish != nil {
		r.Finish(ctx, o)
	}
	rec := state.Record{Kind: state.RunFinished}
	if o.Failure != nil {
		rec.Reason, rec.Hint = o.Failure.Error(), o.Failure.Hint
	}
	_ = r.Log.Record(rec, state.Finished{Outcome: o.Status, Exit: o.Exit, Lanes: o.Lanes, Systems: o.Systems})
	for _, l := range r.Run.Lanes {
		l.Drop()
	}
	return o
}

// running is what a lane's host runs now, as far as it is known.
func running(l *Lane) string {
	switch l.Status {
	case state.Committed:
		return l.To.Out
	case state.Restored:
		return l.Current().System
	case state.Untouched:
		return l.Seen.System
	}
	return ""
}

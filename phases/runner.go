package phases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/state"
)

// Runner walks a run's phases, and walks back when one fails.
type Runner struct {
	Run  *Run
	Log  *Log
	Stop <-chan struct{} // closed: stop after the step that runs now
	Told []state.Record  // what the journal holds of earlier processes of this run
	// NoWait ends the process, with the run saved, where something outside has to happen first.
	NoWait bool
	// Finish is called with the outcome before it is journalled: notifications.
	Finish func(ctx context.Context, o *Outcome)

	prior   *state.Run // what Told says
	telling bool       // hosts keep their part of the record
	fenced  *Failure   // another controller has taken a host over
}

var (
	errAborted = errors.New("stopped by the operator")
	errPaused  = errors.New("stopped by the operator: the run can be resumed")
)

// Outcome is how a run ended.
type Outcome struct {
	Exit    int
	Status  state.Status
	Failure *Failure // nil: none
	Lanes   map[string]state.Status
	Systems map[string]string // host → what it runs now; "" where that is not known
	Remains []string          // commands that a person has to type
	Alerts  []string          // monitor rules that are breached and were not rolled back
	Data    []string          // what became of data that went back, or could have
}

func newOutcome() *Outcome {
	return &Outcome{Lanes: map[string]state.Status{}, Systems: map[string]string{}}
}

// Execute runs all phases. It returns when every lane is committed, restored,
// or has to be left to a person, or when the run is saved for later.
func (r *Runner) Execute(ctx context.Context) *Outcome {
	r.tell(ctx)
	return r.execute(ctx)
}

func (r *Runner) execute(ctx context.Context) *Outcome {
	err := r.forward(ctx)
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		return r.back(ctx, AsFailure(err))
	}
	o := newOutcome()
	r.commit(ctx, o)
	return r.finish(ctx, o)
}

// back ends a run that failed: where that is what it means, by going back.
func (r *Runner) back(ctx context.Context, f *Failure) *Outcome {
	o := newOutcome()
	o.Failure, o.Exit = f, f.Exit
	if saved[o.Exit] == "" {
		r.reject(f)
		r.backward(ctx, o)
	}
	if saved[o.Exit] != "" {
		return r.save(ctx, o)
	}
	return r.finish(ctx, o)
}

func (r *Runner) forward(ctx context.Context) error {
	run, settled := r.chain(), r.settle()
	r.state(state.Preparing)
	for _, l := range r.Run.Lanes {
		go func() { _, _ = l.agent(ctx) }() // a step that needs it waits for it, or sees the error again
	}
	for _, phase := range r.Run.Phases {
		if !slices.ContainsFunc(phase.Steps, func(s Step) bool { return !settled[Key(phase.Name, s)] }) {
			continue
		}
		start := time.Now()
		if err := r.Log.Record(state.Record{Kind: state.PhaseStarted, Phase: phase.Name, Text: phase.Kind}, nil); err != nil {
			return err
		}
		r.entered(phase.Kind)
		for _, s := range phase.Steps {
			if settled[Key(phase.Name, s)] {
				continue
			}
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
	if ctx.Err() != nil {
		return &Failure{Exit: ExitAborted, Err: errAborted}
	}
	if kind != "monitor" && ended(r.Stop) {
		return &Failure{Exit: ExitInterrupted, Err: errPaused}
	}
	if err := r.Log.Broken(); err != nil {
		return fmt.Errorf("the journal cannot be written, so the run stops here: %w", err)
	}
	return nil
}

func (r *Runner) env(phase string, s Step) *Env {
	env := &Env{Run: r.Run, Phase: phase, Step: Key(phase, s), Stop: r.Stop}
	if st := r.before(s, env.Step); st != nil {
		env.Since = st.Started
	}
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
	r.list(o)
	if r.Finish != nil {
		r.Finish(ctx, o)
	}
	rec := state.Record{Kind: state.RunFinished}
	if o.Failure != nil {
		rec.Reason, rec.Hint = o.Failure.Error(), o.Failure.Hint
	}
	_ = r.Log.Record(rec, state.Finished{Outcome: o.Status, Exit: o.Exit, Lanes: o.Lanes, Systems: o.Systems})
	r.flush(ctx)
	for _, l := range r.Run.Lanes {
		l.Drop()
	}
	return o
}

// list puts the lanes into an outcome.
func (r *Runner) list(o *Outcome) {
	for _, l := range r.Run.Lanes {
		o.Lanes[l.Name], o.Systems[l.Name] = cmp.Or(l.Status, state.Untouched), running(l)
		o.Data = append(o.Data, l.became...)
	}
}

// running is what a lane's host runs now, as far as it is known.
func running(l *Lane) string {
	switch l.Status {
	case state.Committed:
		return l.To.Out
	case state.Restored:
		return l.Current().System
	case state.Untouched, "":
		return l.Seen.System
	}
	return ""
}

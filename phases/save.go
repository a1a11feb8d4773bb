package phases

import (
	"context"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/state"
)

// saved are the ends of a process that are no end of its run.
var saved = map[int]state.Status{
	ExitWaiting:     state.Waiting,
	ExitInterrupted: state.Interrupted,
	ExitFenced:      state.Interrupted,
}

// save leaves the run as it is, for `deployer resume`. A guard that waits for
// a decision goes on waiting.
func (r *Runner) save(ctx context.Context, o *Outcome) *Outcome {
	o.Status = saved[o.Exit]
	if o.Status == state.Waiting {
		_ = r.Log.Record(state.Record{Kind: state.RunState, Reason: o.Failure.Error()}, state.Moved{To: o.Status})
	}
	r.list(o)
	for _, l := range r.Run.Lanes {
		if left := time.Until(l.guarded); !l.guarded.IsZero() && left > 0 {
			o.Failure.Output = append(o.Failure.Output, fmt.Sprintf("%s: its guard goes back by itself in %s", l.Name, left.Round(time.Second)))
		}
	}
	if o.Exit != ExitFenced {
		r.flush(ctx)
	}
	for _, l := range r.Run.Lanes {
		l.Drop()
	}
	return o
}

// undecided tells whether a host's guard waits for a decision: the run cannot be
// put off then.
func (r *Runner) undecided() bool {
	for _, l := range r.Run.Lanes {
		if !l.guarded.IsZero() {
			return true
		}
	}
	return false
}

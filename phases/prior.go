package phases

import (
	"errors"
	"slices"

	"github.com/hbohlen/deployer/state"
)

// before is what the journal says that an earlier process did of a step, nil
// where it did nothing.
func (r *Runner) before(s Step, key string) *state.StepState {
	if r.prior == nil {
		return nil
	}
	return r.prior.Step(HostOf(s), key)
}

// settle finds the steps that need nothing more: those that had their effect.
// On a host that was not changed everything is done again, since that changes
// nothing either. What was only looked at is looked at again, unless what it
// was looked at for has happened.
func (r *Runner) settle() map[string]bool {
	settled, had := map[string]bool{}, map[string]bool{} // had an effect later on: by lane, "" for any
	for _, phase := range slices.Backward(r.Run.Phases) {
		for _, s := range slices.Backward(phase.Steps) {
			key, lane := Key(phase.Name, s), HostOf(s)
			st := r.before(s, key)
			if st == nil {
				continue
			}
			done := st.Status == state.StatusDone || st.Status == state.StatusSkipped
			l := r.Run.LaneOf(lane)
			settled[key] = done && (l == nil || l.Changed()) && (ClassOf(s) != Read || had[lane])
			if len(st.Undo) > 0 {
				had[lane], had[""] = true, true
			}
		}
	}
	return settled
}

// attempt is the number of the attempt that comes next. A step in doubt, and one
// that may be done twice, goes on under the same: that is its operation id.
func (r *Runner) attempt(s Step, key string) int {
	st := r.before(s, key)
	if st == nil {
		return 1
	}
	again := st.Status == state.StatusIntended || st.Status == state.StatusWaiting || ClassOf(s) == Idempotent && st.Status == state.StatusDone
	if again {
		return max(st.Attempt, 1)
	}
	return st.Attempt + 1
}

// unsure stops a run at a step that must not happen twice, and of which nobody
// knows whether it happened: with an undo the run goes back, without one a
// person has to say.
func (r *Runner) unsure(s Step, key string) error {
	st := r.before(s, key)
	if st == nil || st.Status != state.StatusIntended || ClassOf(s) != Once {
		return nil
	}
	f := &Failure{Exit: ExitWaiting, Err: errors.New("nobody knows whether it happened, and it must not happen twice")}
	if len(st.Undo) > 0 {
		f.Exit = ExitFailed
	}
	return f
}

package state

import (
	"cmp"
	"slices"
)

// reindex finds the steps again in a run that was copied or decoded.
func (r *Run) reindex() {
	if r.index != nil {
		return
	}
	r.index = map[stepID]place{}
	for p, phase := range r.Phases {
		for s, step := range phase.Steps {
			r.index[stepID{step.Host, step.Key}] = place{p, s}
		}
	}
}

// phase returns a phase, as pending where it is new.
func (r *Run) phase(name string) *PhaseState {
	return &r.Phases[r.phaseAt(name)]
}

func (r *Run) phaseAt(name string) int {
	for i := range r.Phases {
		if r.Phases[i].Name == name {
			return i
		}
	}
	r.Phases = append(r.Phases, PhaseState{Name: name, Status: StatusPending})
	return len(r.Phases) - 1
}

// step returns the step of a record, as pending where it is new.
func (r *Run) step(rec Record) *StepState {
	if s := r.Step(rec.Host, rec.Step); s != nil {
		return s
	}
	return r.add(rec.Phase, rec.Host, rec.Step)
}

func (r *Run) add(phase, host, key string) *StepState {
	r.reindex()
	at := r.phaseAt(phase)
	p := &r.Phases[at]
	p.Steps = append(p.Steps, StepState{Key: key, Host: host, Phase: phase, Status: StatusPending})
	r.index[stepID{host, key}] = place{at, len(p.Steps) - 1}
	return &p.Steps[len(p.Steps)-1]
}

// steps returns those that are wanted, in the order of their intents.
func (r *Run) steps(want func(StepState) bool) []StepState {
	var out []StepState
	for _, p := range r.Phases {
		for _, s := range p.Steps {
			if want(s) {
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b StepState) int { return cmp.Compare(a.Intent, b.Intent) })
	return out
}

// end is where a phase is when it says that it is over: as its steps are.
func (p *PhaseState) end() StepStatus {
	skipped := len(p.Steps) > 0
	out := StatusDone
	for _, s := range p.Steps {
		skipped = skipped && s.Status == StatusSkipped
		switch s.Status {
		case StatusFailed, StatusUndoFailed:
			return StatusFailed
		case StatusWaiting, StatusIntended, StatusRunning, StatusUndoing:
			out = s.Status
		}
	}
	if skipped {
		return StatusSkipped
	}
	if out == StatusIntended {
		return StatusRunning
	}
	return out
}

// past tells whether a step has already gone beyond what rec says of it. What
// is settled stays so for that attempt; only a higher one begins anew.
func (s *StepState) past(rec Record) bool {
	switch {
	case rec.Attempt > s.Attempt:
		return false
	case rec.Attempt != 0 && rec.Attempt < s.Attempt:
		return true
	}
	switch s.Status {
	case StatusDone, StatusUndoing, StatusUndone, StatusUndoFailed:
		return true
	case StatusFailed:
		return rec.Kind != StepIntent && rec.Kind != StepRetry
	}
	return false
}

// note takes over what every record of a step brings.
func (s *StepState) note(rec Record, status StepStatus) {
	s.Status, s.Reason, s.Progress = status, rec.Reason, ""
	s.Attempt = max(s.Attempt, rec.Attempt)
	if rec.Text != "" {
		s.Text = rec.Text
	}
}

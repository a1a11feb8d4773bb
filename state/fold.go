package state

import (
	"encoding/json"
	"slices"
	"time"
)

// Fold returns the run that recs tell of.
func Fold(recs []Record) *Run {
	r := &Run{Status: Planned}
	for _, rec := range recs {
		Apply(r, rec)
	}
	return r
}

// Apply takes one more record into the run; taking them as they come and
// replaying them come to the same. It ignores unknown kinds, records of other
// runs, records it has seen, and all that follows the end of the run.
func Apply(r *Run, rec Record) {
	apply, known := appliers[rec.Kind]
	mine := r.ID == "" || rec.Run == r.ID
	if !known || !mine || rec.Seq <= r.Seq || r.Finished() {
		return
	}
	r.ID, r.Seq, r.Updated = rec.Run, rec.Seq, rec.Time
	if apply != nil {
		apply(r, rec)
	}
}

var appliers = map[Kind]func(*Run, Record){
	RunCreated:    created,
	RunState:      moved,
	RunFinished:   finished,
	PhaseStarted:  phaseStarted,
	PhaseFinished: phaseFinished,
	StepIntent:    intended,
	StepDone:      outcome(StatusDone),
	StepFailed:    outcome(StatusFailed),
	StepSkipped:   outcome(StatusSkipped),
	StepWaiting:   outcome(StatusWaiting),
	StepRetry:     outcome(StatusPending),
	StepResolved:  resolved,
	LaneState:     laneMoved,
	UndoIntent:    undo(StatusUndoing),
	UndoDone:      undo(StatusUndone),
	UndoFailed:    undo(StatusUndoFailed),
	LeaseAcquired: acquired,
	GuardArmed:    guard,
	GuardDecided:  guard,
	Decision:      func(r *Run, rec Record) { r.Decisions = append(r.Decisions, rec) },
	Check:         func(r *Run, rec Record) { r.Checks = append(r.Checks, rec) },
	Notified:      notified,
	NotifyFailed:  notified,
	Repaired:      nil,
	Note:          func(r *Run, rec Record) { r.Notes = append(r.Notes, rec) },
}

func notified(r *Run, rec Record) { r.Notifications = append(r.Notifications, rec) }

// data decodes what a record carries; what does not fit stays zero.
func data[T any](rec Record) (out T) {
	if json.Unmarshal(rec.Data, &out) != nil {
		var zero T
		return zero
	}
	return out
}

func created(r *Run, rec Record) {
	c := data[Created](rec)
	r.Type, r.Runbook, r.Undoes, r.GoesBack = c.Type, c.Runbook, c.Undoes, c.GoesBack
	r.Plan, r.Revision, r.Version, r.CI = c.Plan, c.Revision, c.Version, c.CI
	r.By, r.Reason, r.Vars, r.Hosts = c.By, c.Reason, c.Vars, c.Hosts
	r.Started = rec.Time
	for _, host := range c.Hosts {
		r.setLane(host, func(l *Lane) { l.Status = Planned })
	}
}

// acquired keeps the highest epochs: none ever goes down.
func acquired(r *Run, rec Record) {
	a := data[Acquired](rec)
	r.Epoch = max(r.Epoch, a.Epoch)
	for host, epoch := range a.Hosts {
		r.setLane(host, func(l *Lane) { l.Epoch = max(l.Epoch, epoch) })
	}
}

// guard leaves the decision of a lane's last round: none yet where it is armed.
func guard(r *Run, rec Record) {
	if rec.Host != "" {
		r.setLane(rec.Host, func(l *Lane) { l.Decision = data[Decided](rec).Decision })
	}
}

// moved also takes up a run again that ended stuck or unknown.
func moved(r *Run, rec Record) {
	to := data[Moved](rec).To
	if to == "" || to == Interrupted {
		return
	}
	r.Status, r.Waits = to, rec.Reason
	r.Outcome, r.Exit, r.Ended = "", nil, time.Time{}
}

func finished(r *Run, rec Record) {
	f := data[Finished](rec)
	if f.Outcome != "" {
		r.Status = f.Outcome
	}
	r.Outcome, r.Exit, r.Ended, r.Waits = r.Status, &f.Exit, rec.Time, rec.Reason
	for host, status := range f.Lanes {
		r.setLane(host, func(l *Lane) { l.Status = status })
	}
	for host, system := range f.Systems {
		r.setLane(host, func(l *Lane) { l.System = system })
	}
}

func laneMoved(r *Run, rec Record) {
	to := data[Moved](rec).To
	if to == "" || rec.Host == "" || r.Lanes[rec.Host].Status == Restored {
		return
	}
	r.setLane(rec.Host, func(l *Lane) { l.Status, l.Reason = to, rec.Reason })
}

func (r *Run) setLane(host string, change func(*Lane)) {
	if r.Lanes == nil {
		r.Lanes = map[string]Lane{}
	}
	lane := r.Lanes[host]
	change(&lane)
	r.Lanes[host] = lane
}

// phase returns a phase, as pending where it is new.
func (r *Run) phase(name string) *PhaseState { return &r.Phases[r.phaseAt(name)] }

func (r *Run) phaseAt(name string) int {
	i := slices.IndexFunc(r.Phases, func(p PhaseState) bool { return p.Name == name })
	if i < 0 {
		i = len(r.Phases)
		r.Phases = append(r.Phases, PhaseState{Name: name, Status: StatusPending})
	}
	return i
}

// step returns the step of a record, as pending where it is new.
func (r *Run) step(rec Record) *StepState {
	if s := r.Step(rec.Host, rec.Step); s != nil {
		return s
	}
	i := r.phaseAt(rec.Phase)
	p := &r.Phases[i]
	r.index[[2]string{rec.Host, rec.Step}] = place{i, len(p.Steps)}
	p.Steps = append(p.Steps, StepState{Key: rec.Step, Host: rec.Host, Phase: rec.Phase, Status: StatusPending})
	return r.Step(rec.Host, rec.Step)
}

func phaseStarted(r *Run, rec Record) {
	p := r.phase(rec.Phase)
	p.Status, p.Ended = StatusRunning, time.Time{}
	if p.Started.IsZero() {
		p.Started = rec.Time
	}
}

// phaseFinished leaves the phase as its steps are.
func phaseFinished(r *Run, rec Record) {
	p := r.phase(rec.Phase)
	p.Status, p.Ended, p.Elapsed = StatusDone, rec.Time, rec.Elapsed
	skipped := 0
	for _, s := range p.Steps {
		switch s.Status {
		case StatusFailed, StatusUndoFailed:
			p.Status = StatusFailed
			return
		case StatusSkipped:
			skipped++
		case StatusWaiting, StatusUndoing:
			p.Status = s.Status
		case StatusIntended:
			p.Status = StatusRunning
		}
	}
	if skipped > 0 && skipped == len(p.Steps) {
		p.Status = StatusSkipped
	}
}

func intended(r *Run, rec Record) {
	s := r.step(rec)
	if s.past(rec) {
		return
	}
	in := data[Intent](rec)
	s.note(rec, StatusIntended)
	s.Op, s.Class, s.Undo, s.Intent = in.Op, in.Class, in.Undo, rec.Seq
	s.Ended, s.Elapsed, s.Facts = time.Time{}, 0, nil
	if s.Started.IsZero() {
		s.Started = rec.Time
	}
	r.phase(s.Phase).Status = StatusRunning
	changes := in.Class != "read" && in.Class != "notify" // a class of a later version may
	r.Changed = r.Changed || rec.Host != "" && changes
}

func outcome(status StepStatus) func(*Run, Record) {
	return func(r *Run, rec Record) {
		if s := r.step(rec); !s.past(rec) {
			s.note(rec, status)
			s.Ended, s.Elapsed, s.Facts = rec.Time, rec.Elapsed, rec.Data
		}
	}
}

// verdicts say what a step in doubt turned out to be.
var verdicts = map[string]StepStatus{"applied": StatusDone, "not-applied": StatusPending, "partial": StatusFailed}

func resolved(r *Run, rec Record) {
	v := data[Resolved](rec)
	if status := verdicts[v.Verdict]; status != "" {
		rec.Data = v.Evidence
		outcome(status)(r, rec)
	}
}

func undo(status StepStatus) func(*Run, Record) {
	return func(r *Run, rec Record) {
		s := r.step(rec)
		if s.Status == StatusUndone {
			return
		}
		rec.Attempt = s.Attempt // an undo is of the step, not of an attempt
		s.note(rec, status)
		if status != StatusUndoing {
			s.Ended, s.Elapsed = rec.Time, rec.Elapsed
		}
		r.Changed = r.Changed || rec.Host != ""
	}
}

// past tells whether a step has already gone beyond what rec says of it. What
// is settled stays so for that attempt; only a higher one begins anew.
func (s *StepState) past(rec Record) bool {
	if rec.Attempt != s.Attempt && rec.Attempt != 0 {
		return rec.Attempt < s.Attempt
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
	s.Status, s.Reason = status, rec.Reason
	s.Attempt = max(s.Attempt, rec.Attempt)
	if rec.Text != "" {
		s.Text = rec.Text
	}
}

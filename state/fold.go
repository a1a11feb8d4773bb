package state

import (
	"encoding/json"
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

// Apply takes one more record into the run; the live view and a replay come to
// the same. It ignores unknown kinds, records of other runs, records it has
// seen, and all that follows the end of the run.
func Apply(r *Run, rec Record) {
	apply, known := appliers[rec.Kind]
	if !known || !r.takes(rec) {
		return
	}
	r.ID = rec.Run
	if r.Status == "" {
		r.Status = Planned
	}
	if rec.Kind.Journalled() {
		r.Seq, r.Updated = max(r.Seq, rec.Seq), rec.Time
	}
	apply(r, rec)
}

func (r *Run) takes(rec Record) bool {
	mine := r.ID == "" || rec.Run == r.ID
	news := rec.Seq == 0 || rec.Seq > r.Seq
	return mine && news && !r.Finished()
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
	StepProgress:  progress,
	LaneState:     laneMoved,
	UndoIntent:    undo(StatusUndoing),
	UndoDone:      undo(StatusUndone),
	UndoFailed:    undo(StatusUndoFailed),
	Decision:      func(r *Run, rec Record) { r.Decisions = append(r.Decisions, rec) },
	Check:         func(r *Run, rec Record) { r.Checks = append(r.Checks, rec) },
	Notified:      notified,
	NotifyFailed:  notified,
	Repaired:      func(*Run, Record) {},
	Note:          func(*Run, Record) {},
}

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
	r.Type, r.Runbook, r.Undoes = c.Type, c.Runbook, c.Undoes
	r.Plan, r.Revision, r.Version, r.CI = c.Plan, c.Revision, c.Version, c.CI
	r.By, r.Reason, r.Vars, r.Hosts = c.By, c.Reason, c.Vars, c.Hosts
	r.Started = rec.Time
	for _, host := range c.Hosts {
		r.setLane(host, func(l *Lane) {
			if l.Status == "" {
				l.Status = Planned
			}
		})
	}
}

// moved also takes up a run again that ended stuck or unknown.
func moved(r *Run, rec Record) {
	to := data[Moved](rec).To
	if to == "" || to == Interrupted {
		return
	}
	r.Status, r.Waits = to, rec.Reason
	r.Outcome, r.Exit = "", nil
	r.Ended = time.Time{}
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
	if to == "" || rec.Host == "" {
		return
	}
	r.setLane(rec.Host, func(l *Lane) {
		if l.Status != Restored {
			l.Status, l.Reason = to, rec.Reason
		}
	})
}

func (r *Run) setLane(host string, change func(*Lane)) {
	if r.Lanes == nil {
		r.Lanes = map[string]Lane{}
	}
	lane := r.Lanes[host]
	change(&lane)
	r.Lanes[host] = lane
}

func notified(r *Run, rec Record) { r.Notifications = append(r.Notifications, rec) }

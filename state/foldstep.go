package state

import "time"

func phaseStarted(r *Run, rec Record) {
	p := r.phase(rec.Phase)
	p.Status, p.Ended = StatusRunning, time.Time{}
	if p.Started.IsZero() {
		p.Started = rec.Time
	}
}

func phaseFinished(r *Run, rec Record) {
	p := r.phase(rec.Phase)
	p.Status, p.Ended, p.Elapsed = p.end(), rec.Time, rec.Elapsed
}

func intended(r *Run, rec Record) {
	s := r.step(rec)
	if s.past(rec) {
		return
	}
	in := data[Intent](rec)
	s.note(rec, StatusIntended)
	s.Op, s.Class, s.Undo, s.Intent = in.Op, in.Class, in.Undo, rec.Seq
	s.Started, s.Ended, s.Elapsed, s.Facts = rec.Time, time.Time{}, 0, nil
	r.phase(s.Phase).Status = StatusRunning
	r.Changed = r.Changed || rec.Host != "" && changes(in.Class)
}

// changes takes a class that it does not know for one that does.
func changes(class string) bool { return class != "read" && class != "notify" }

func outcome(status StepStatus) func(*Run, Record) {
	return func(r *Run, rec Record) {
		s := r.step(rec)
		if s.past(rec) {
			return
		}
		s.note(rec, status)
		s.Ended, s.Elapsed, s.Facts = rec.Time, rec.Elapsed, rec.Data
	}
}

// progress is shown and gone: the next record of the step leaves no trace of it.
func progress(r *Run, rec Record) {
	s := r.Step(rec.Host, rec.Step)
	if s == nil || s.past(rec) {
		return
	}
	if s.Status == StatusIntended || s.Status == StatusRunning {
		s.Status, s.Progress = StatusRunning, rec.Text
	}
}

func undo(status StepStatus) func(*Run, Record) {
	return func(r *Run, rec Record) {
		s := r.step(rec)
		if s.Status == StatusUndone {
			return
		}
		s.Status, s.Reason, s.Progress = status, rec.Reason, ""
		if rec.Text != "" {
			s.Text = rec.Text
		}
		if status != StatusUndoing {
			s.Ended, s.Elapsed = rec.Time, rec.Elapsed
		}
		r.Changed = r.Changed || rec.Host != ""
	}
}

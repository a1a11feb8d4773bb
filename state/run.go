package state

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Run is what the journal of one run says, folded.
type Run struct {
	ID            string            `json:"id"`
	Type          string            `json:"type"`
	Runbook       string            `json:"runbook"`
	Undoes        string            `json:"undoes,omitempty"`
	Plan          string            `json:"plan,omitempty"`
	Revision      string            `json:"revision,omitempty"`
	By            string            `json:"by"`
	Reason        string            `json:"reason,omitempty"`
	Version       string            `json:"version,omitempty"`
	CI            string            `json:"ci,omitempty"`
	Vars          map[string]string `json:"vars,omitempty"`
	Hosts         []string          `json:"hosts"`
	Status        Status            `json:"status"`           // as recorded; Derive tells what it means now
	Waits         string            `json:"waits,omitempty"`  // reason of the status, where it has one
	Changed       bool              `json:"changed"`          // a host may be other than before
	Phases        []PhaseState      `json:"phases,omitempty"` // in the order they were met
	Lanes         map[string]Lane   `json:"lanes,omitempty"`  // by host
	Decisions     []Record          `json:"decisions,omitempty"`
	Checks        []Record          `json:"checks,omitempty"`
	Notifications []Record          `json:"notifications,omitempty"`
	Notes         []Record          `json:"notes,omitempty"` // such as where data is kept that a restore replaced
	Outcome       Status            `json:"outcome,omitempty"`
	Exit          *int              `json:"exit,omitempty"`
	Started       time.Time         `json:"started,omitzero"`
	Ended         time.Time         `json:"ended,omitzero"`
	Updated       time.Time         `json:"updated,omitzero"` // time of the last record
	Seq           uint64            `json:"seq"`              // number of the last record
	Epoch         uint64            `json:"epoch,omitempty"`  // of the last lease

	GoesBack map[string][]string `json:"goes_back,omitempty"` // by host, the subvolumes whose data a rollback restores

	index map[[2]string]place // of the steps, by host and key
}

// DataOnly tells whether the run is a restore of data and nothing else: it undoes
// no run.
func (r *Run) DataOnly() bool { return r.Type == "rollback" && r.Undoes == "" }

// PhaseState is what is known of a phase.
type PhaseState struct {
	Name    string      `json:"name"`
	Status  StepStatus  `json:"status"`
	Started time.Time   `json:"started,omitzero"`
	Ended   time.Time   `json:"ended,omitzero"`
	Elapsed float64     `json:"elapsed,omitempty"`
	Steps   []StepState `json:"steps,omitempty"`
}

// StepState is what is known of a step.
type StepState struct {
	Key     string          `json:"key"`
	Host    string          `json:"host,omitempty"`
	Phase   string          `json:"phase,omitempty"`
	Status  StepStatus      `json:"status"` // as recorded; InDoubt tells what it means now
	Attempt int             `json:"attempt,omitempty"`
	Op      string          `json:"op,omitempty"`
	Class   string          `json:"class,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Text    string          `json:"text,omitempty"`
	Started time.Time       `json:"started,omitzero"` // of its first attempt
	Ended   time.Time       `json:"ended,omitzero"`
	Elapsed float64         `json:"elapsed,omitempty"`
	Intent  uint64          `json:"intent,omitempty"` // number of the last intent: undo goes by it, downwards
	Undo    json.RawMessage `json:"undo,omitempty"`
	Facts   json.RawMessage `json:"facts,omitempty"` // data of its outcome
}

// Lane is what is known of a host in the run.
type Lane struct {
	Status Status `json:"status"`
	System string `json:"system,omitempty"` // store path it ended on
	Reason string `json:"reason,omitempty"`

	Decision string `json:"decision,omitempty"` // of its guard's last round: confirmed, restoring
	Epoch    uint64 `json:"epoch,omitempty"`    // the last that the host gave
}

// StepStatus is where a step or a phase is.
type StepStatus string

// The states of a step; only a phase is running.
const (
	StatusPending    StepStatus = "pending"
	StatusIntended   StepStatus = "intended"
	StatusRunning    StepStatus = "running"
	StatusDone       StepStatus = "done"
	StatusFailed     StepStatus = "failed"
	StatusSkipped    StepStatus = "skipped"
	StatusWaiting    StepStatus = "waiting"
	StatusUndoing    StepStatus = "undoing"
	StatusUndone     StepStatus = "undone"
	StatusUndoFailed StepStatus = "undo-failed"
)

// Step returns a step by host and key, or nil. The pointer is good until the
// next Apply.
func (r *Run) Step(host, key string) *StepState {
	if r.index == nil {
		r.index = map[[2]string]place{}
		for p := range r.Phases {
			for s, step := range r.Phases[p].Steps {
				r.index[[2]string{step.Host, step.Key}] = place{p, s}
			}
		}
	}
	at, ok := r.index[[2]string{host, key}]
	if !ok {
		return nil
	}
	return &r.Phases[at.phase].Steps[at.step]
}

type place struct{ phase, step int }

// InDoubt returns the steps whose intent has no outcome, in the order of
// their intents. A run that is live has none: its process still knows.
func (r *Run) InDoubt(live bool) []StepState {
	var out []StepState
	for _, p := range r.Phases {
		for _, s := range p.Steps {
			if !live && (s.Status == StatusIntended || s.Status == StatusUndoing) {
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b StepState) int { return cmp.Compare(a.Intent, b.Intent) })
	return out
}

// Finished tells whether the run is over for good. Stuck and unknown are not:
// a later attempt may resolve them.
func (r *Run) Finished() bool {
	return !r.Ended.IsZero() && r.Outcome != Stuck && r.Outcome != OutOfReach
}

// Derive tells where a run is, given whether a process holds its lease: what
// neither ended nor waits, and has no process, was interrupted.
func Derive(run *Run, live bool) Status {
	if live || !run.Ended.IsZero() || slices.Contains([]Status{Waiting, Stuck, OutOfReach}, run.Status) {
		return run.Status
	}
	return Interrupted
}

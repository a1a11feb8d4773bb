package state

import (
	"encoding/json"
	"time"
)

// Schema is the version of the record format. Records of every version that
// was ever released stay readable.
const Schema = 2

// Record is the one event type: a line of the journal, a line of `--json`, and
// what the live view draws. Unknown fields and kinds are ignored by readers.
type Record struct {
	V       int             `json:"v"`
	Seq     uint64          `json:"seq"` // 1, 2, …; 0 on events that are shown but not journalled
	Time    time.Time       `json:"time"`
	Run     string          `json:"run"`
	Host    string          `json:"host,omitempty"`  // the lane
	Phase   string          `json:"phase,omitempty"` // the phase's name in the runbook
	Step    string          `json:"step,omitempty"`  // the step's key in the plan
	Attempt int             `json:"attempt,omitempty"`
	Kind    Kind            `json:"kind"`
	Text    string          `json:"text,omitempty"`    // one line for a person
	Reason  string          `json:"reason,omitempty"`  // of a skip, wait, retry, failure
	Hint    []string        `json:"hint,omitempty"`    // what to type next
	Elapsed float64         `json:"elapsed,omitempty"` // seconds, of what ended
	Data    json.RawMessage `json:"data,omitempty"`
	Epoch   uint64          `json:"epoch,omitempty"` // of the lease that it was written under
	Prev    string          `json:"prev,omitempty"`  // hash of the line before, in the journal only
}

// Kind says what a record tells.
type Kind string

// The kinds. A step's intent is durable before its effect, its outcome after.
const (
	RunCreated    Kind = "run.created"  // Data: Created
	RunState      Kind = "run.state"    // Data: Moved
	RunFinished   Kind = "run.finished" // Data: Finished; the last record of a run
	PhaseStarted  Kind = "phase.started"
	PhaseFinished Kind = "phase.finished"
	StepIntent    Kind = "step.intent" // Data: Intent
	StepDone      Kind = "step.done"   // Data: the step's facts
	StepFailed    Kind = "step.failed"
	StepSkipped   Kind = "step.skipped"
	StepWaiting   Kind = "step.waiting"
	StepRetry     Kind = "step.retry"
	StepResolved  Kind = "step.resolved" // Data: Resolved; of a step in doubt
	StepProgress  Kind = "step.progress" // never journalled
	LaneState     Kind = "lane.state"    // Data: Moved
	UndoIntent    Kind = "undo.intent"
	UndoDone      Kind = "undo.done"
	UndoFailed    Kind = "undo.failed"
	LeaseAcquired Kind = "lease.acquired" // Data: Acquired
	GuardArmed    Kind = "guard.armed"    // a round begins
	GuardDecided  Kind = "guard.decided"  // Data: Decided
	Decision      Kind = "gate.decided"
	Check         Kind = "check.result"
	Notified      Kind = "notify.sent"
	NotifyFailed  Kind = "notify.failed"
	Repaired      Kind = "journal.repaired"
	Rebuilt       Kind = "journal.rebuilt" // from which hosts; the first record, numbered 0
	Note          Kind = "note"
)

// Journalled tells whether records of this kind are kept, or only shown.
func (k Kind) Journalled() bool { return k != StepProgress }

// Status is where a run or a lane is.
type Status string

// The states of a run; a lane knows planned, changing, validating, committed,
// restoring, restored, stuck, unknown and untouched.
const (
	Planned     Status = "planned"
	Waiting     Status = "waiting"
	Preparing   Status = "preparing"
	Changing    Status = "changing"
	Validating  Status = "validating"
	Committing  Status = "committing"
	Monitoring  Status = "monitoring"
	Succeeded   Status = "succeeded"
	Failed      Status = "failed" // before any change
	Restoring   Status = "restoring"
	RolledBack  Status = "rolled-back"
	ByHost      Status = "rolled-back-by-host"
	Stuck       Status = "stuck"
	OutOfReach  Status = "unknown"
	Interrupted Status = "interrupted" // derived, never written: not finished, not waiting, no live lease
	Untouched   Status = "untouched"   // lanes only, from here on
	Committed   Status = "committed"
	Restored    Status = "restored"
)

// Created is the data of RunCreated.
type Created struct {
	Type     string            `json:"type"` // deploy, rollback
	Runbook  string            `json:"runbook"`
	Undoes   string            `json:"undoes,omitempty"` // the run that a rollback undoes
	Plan     string            `json:"plan,omitempty"`   // digest of plan.json beside the journal
	Revision string            `json:"revision,omitempty"`
	Vars     map[string]string `json:"vars,omitempty"`
	Hosts    []string          `json:"hosts"`
	By       string            `json:"by"` // user@machine
	Reason   string            `json:"reason,omitempty"`
	Version  string            `json:"version"` // of deployer
	CI       string            `json:"ci,omitempty"`

	GoesBack map[string][]string `json:"goes_back,omitempty"` // by host, the subvolumes whose data a rollback restores
}

// Moved is the data of RunState and LaneState.
type Moved struct {
	From Status `json:"from,omitempty"`
	To   Status `json:"to"`
}

// Intent is the data of StepIntent: all that a resuming reader needs to judge
// a step whose outcome is missing.
type Intent struct {
	Op    string          `json:"op"`    // run.host.step.attempt: idempotency key
	Class string          `json:"class"` // read, idempotent, probe, reboot, once, notify
	Undo  json.RawMessage `json:"undo,omitempty"`
}

// Resolved is the data of StepResolved: what became of a step in doubt.
type Resolved struct {
	Method   string          `json:"method"`  // receipt, probe, operator
	Verdict  string          `json:"verdict"` // applied, not-applied, partial
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// Acquired is the data of LeaseAcquired.
type Acquired struct {
	Epoch  uint64            `json:"epoch"`
	Holder string            `json:"holder"` // user@machine
	Reason string            `json:"reason,omitempty"`
	Hosts  map[string]uint64 `json:"hosts,omitempty"` // the epoch that each host counts
}

// Decided is the data of GuardDecided.
type Decided struct {
	Decision string `json:"decision"` // confirmed, restoring
	By       string `json:"by"`       // controller, guard, person
	Round    int    `json:"round,omitempty"`
}

// Finished is the data of RunFinished.
type Finished struct {
	Outcome Status            `json:"outcome"`
	Exit    int               `json:"exit"`
	Lanes   map[string]Status `json:"lanes,omitempty"`
	Systems map[string]string `json:"systems,omitempty"` // host → the store path it is on now
}

package phases

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

var zeroTime time.Time

// Env is what a step works with: the run, and the lane it belongs to.
type Env struct {
	*Run
	Lane    *Lane // nil for steps of the controller
	Phase   string
	Step    string // the step's key
	Attempt int
	Since   time.Time       // when the step was first begun, by whatever process; zero: not yet
	Stop    <-chan struct{} // closed: the operator wants an end; a step that lasts for hours looks at it

	data any
	say  func(text string)
}

// Facts sets the data of the step's outcome record.
func (e *Env) Facts(v any) { e.data = v }

// Say shows what the step is doing. It is shown, not journalled.
func (e *Env) Say(text string) {
	if e.say != nil {
		e.say(text)
	}
}

// Op is the step's operation id: the idempotency key of its effects.
func (e *Env) Op() string {
	return e.ID + "." + e.Step + "." + strconv.Itoa(e.Attempt)
}

// Run is one execution: what it works on and with. A run that only plans has no
// ID, no Dir and no journal.
type Run struct {
	ID       string
	Type     string // deploy or rollback
	Undoes   string // the run that a rollback undoes
	Project  *runbooks.Project
	Runbook  *runbooks.Runbook
	Phases   []Compiled
	Plan     *Plan
	Lanes    []*Lane
	Revision string
	Rejected bool     // also try systems that failed on their host before
	Alerts   []string // monitor rules that are breached and were not rolled back
	Dir      *state.RunDir
	Tools

	log *Log
}

// DataOnly tells whether a run is a restore of data and nothing else: it undoes
// no run, and its recipe is what it is to do.
func (r *Run) DataOnly() bool { return r.Type == "rollback" && r.Undoes == "" }

// LaneOf finds a lane by its host's name, nil where there is none.
func (r *Run) LaneOf(name string) *Lane {
	for _, l := range r.Lanes {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// Tools is all that steps reach the outside world by.
type Tools struct {
	Dial       func(ctx context.Context, h *runbooks.Host) (host.Host, error)
	Controller host.Host
	Nix        *nix.Nix
	Agents     Agents
	Snapshots  Snapshotter // nil: the project declares none
	Ask        Asker
	Log        *zap.Logger
	Now        func() time.Time
	Past       func(run, host string) state.Status // how an earlier run's record says a lane ended; nil: there is no record
	Owner      string                              // user@machine
	Version    string
}

// Agents finds the agent binary for a machine.
type Agents interface {
	// For gives the agent for an architecture as `uname -m` names it: its
	// sha256, and its content.
	For(machine string) (digest string, open func() (io.ReadCloser, error), err error)
}

// Snapshotter takes snapshots of declared subvolumes. It is served by a plugin;
// core executes what it asks for.
type Snapshotter interface {
	Plan(ctx context.Context, req SnapshotRequest) (SnapshotPlan, error)
	Create(ctx context.Context, req SnapshotRequest) (agent.SnapshotSet, []agent.Operation, error)
}

// SnapshotRequest names the subvolumes of one host.
type SnapshotRequest struct {
	Run, Host, Op string
	Stamp         time.Time // of the step: the same whenever this is tried again
	Generation    int       // that the host boots now
	Settings      *runbooks.Snapshots
	Operate       Operate
}

// Operate runs one typed operation of a host's agent.
type Operate func(ctx context.Context, op string, args json.RawMessage) (json.RawMessage, error)

// SnapshotPlan is what a provider found on a host.
type SnapshotPlan struct {
	Problems []string // reasons to refuse
}

// Asker asks a person. Steps never print.
type Asker interface {
	// Sign asks who to confirm text and gives their answer, or an error that
	// names the flag to pass where nobody can be asked.
	Sign(ctx context.Context, who, text string) (by string, err error)
}

// Decided records what a person decided.
func (e *Env) Decided(rec state.Record) error {
	rec.Phase, rec.Step = e.Phase, e.Step
	return e.log.Record(rec, nil)
}

// Note records something that a person should see, without a step of its own.
func (e *Env) Note(kind state.Kind, text string) {
	rec := state.Record{Kind: kind, Phase: e.Phase, Step: e.Step, Text: text}
	if e.Lane != nil {
		rec.Host = e.Lane.Name
	}
	_ = e.log.Record(rec, nil)
}

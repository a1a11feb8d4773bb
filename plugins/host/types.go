package host

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"

	"github.com/hbohlen/deployer/phases/agent"
)

// Spec names one plugin to start.
type Spec struct {
	Name   string          // its key in deployer.yaml; for shipped ones their own name
	Path   string          // absolute
	Args   []string        // without the program's name
	SHA256 string          // hex: nothing else is started
	Config json.RawMessage // handed over as it is
	RunDir string          // folder for sockets, of the run; too long a path falls back to the system's

	own bool // the running program itself, whatever lies at its path by now
}

// Services is what core offers to a plugin.
type Services struct {
	Operator Operator             // nil: no operations on hosts
	Allow    []string             // operations that plugins may be given at all
	Writes   func(op string) bool // does op change a host? nil: all do
	Secret   SecretFunc           // nil: none is configured
	Audit    func(Call)           // told of every call, refused ones too; called from several goroutines
	Logger   *zap.Logger          // nil: dropped
}

// Operator runs typed operations of the agent on the host that hostRef names.
// It returns when ctx ends.
type Operator interface {
	Operate(ctx context.Context, hostRef, op string, args json.RawMessage) (json.RawMessage, error)
}

// SecretFunc finds a configured secret; ok is false where none is configured.
type SecretFunc func(ctx context.Context, name string) (value string, ok bool, err error)

// Call is one thing that a plugin asked of core.
type Call struct {
	Plugin    string          `json:"plugin"`
	Service   string          `json:"service"` // operate, secret
	Name      string          `json:"name"`    // of the operation or secret
	Host      string          `json:"host,omitempty"`
	Operation string          `json:"operation,omitempty"` // id
	Args      json.RawMessage `json:"args,omitempty"`
	Write     bool            `json:"write,omitempty"`
	Refused   bool            `json:"refused,omitempty"` // core did not do it
	Error     string          `json:"error,omitempty"`
	Started   time.Time       `json:"started"`
	Took      time.Duration   `json:"took"`
}

// Info is what a plugin says of itself.
type Info struct {
	Name         string          `json:"name"`
	Version      string          `json:"version"`
	Capabilities []string        `json:"capabilities"`
	Operations   []string        `json:"operations,omitempty"`
	Secrets      []string        `json:"secrets,omitempty"`
	Schema       json.RawMessage `json:"schema,omitempty"`
}

// Snapshotter takes snapshots of a host's data.
type Snapshotter interface {
	// Probe returns an error where this host cannot be served.
	Probe(ctx context.Context, hostRef string) (detail string, err error)
	// Plan says what Create would do; it changes nothing.
	Plan(ctx context.Context, req SnapshotRequest) (SnapshotPlan, error)
	// Create takes one set; all of it is durable when it returns. With the
	// OperationID and Stamp of an earlier try it returns what that one made.
	Create(ctx context.Context, req SnapshotRequest) (SnapshotResult, error)
}

// Notifier tells somebody what happened.
type Notifier interface {
	Notify(ctx context.Context, event Event) (Delivery, error)
}

// SnapshotRequest asks for one set on one host.
type SnapshotRequest struct {
	Run         string
	HostRef     string // handed to Operator as it is; the plugin sees a handle
	OperationID string
	Dir         string // empty: the plugin chooses
	Stamp       string // UTC, 20060102T150405Z; empty: now. Journal it with OperationID to try again later
	Subvolumes  []Subvolume
	DryRun      bool
	Progress    func(text string) // may be nil
}

// Subvolume is one declared subvolume.
type Subvolume struct {
	Path       string
	OnRollback string // keep, restore, ask
	Pause      []string
}

// SnapshotPlan is what Create would do.
type SnapshotPlan struct {
	Volumes    []agent.Volume
	Problems   []string          // Create would fail; empty: it would not
	NotCovered []string          // what the snapshots would not contain
	Dirs       map[string]string // subvolume's path → folder of its snapshot
}

// SnapshotResult is what Create did.
type SnapshotResult struct {
	Set         agent.SnapshotSet
	Recipe      []agent.Operation // empty where a rollback keeps the data
	Consistency string            // single, ordered, paused, stopped
}

// Event is one thing that happened, for notifications.
type Event struct {
	ID       string // delivery key: receivers drop what they have seen under it
	Run      string
	Host     string
	Runbook  string
	Phase    string
	Kind     string // run, rollback, alert, window
	Severity string // info, warning, critical
	Time     time.Time
	Title    string
	Text     string
	Fields   map[string]string
	Links    []Link
	ExitCode *int // where the event ends a run
}

// Link is something to open.
type Link struct{ Title, URL string }

// Delivery is the proof that an event was delivered.
type Delivery struct {
	Key    string // the event's ID
	Detail string // where it went and what was answered, without secrets
}

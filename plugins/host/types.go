package host

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/proto"
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
	Plugin    string
	Name      string // of the operation or secret
	Host      string // empty: a secret
	Operation string // id
	Write     bool
	Refused   bool // core did not do it
	Error     string
	Took      time.Duration
}

type (
	Event           = proto.Event
	Subvolume       = proto.Subvolume
	SnapshotPlan    = proto.SnapshotPlan
	SnapshotRequest = proto.SnapshotRequest
	SnapshotResult  = proto.SnapshotResult[agent.SnapshotSet, []agent.Operation]
)

// Error is what a plugin could not do, or what was wrong with it.
type Error struct {
	Plugin  string
	Code    string // untrusted, digest, start, protocol, crashed, hung, closed; else the plugin's own
	Message string
	Hint    []string // what to do next, one line each
}

func (e *Error) Error() string { return "plugin " + e.Plugin + ": " + e.Message }

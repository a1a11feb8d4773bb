package sdk

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// Plugin is what a program serves. Capabilities are advertised for the
// interfaces that are set.
type Plugin struct {
	Name        string
	Version     string
	Notifier    Notifier
	Snapshotter Snapshotter
	Operations  []string // operations that it may ask Core for
	Secrets     []string // secrets that it may ask Core for

	// Configure gets the configuration, and Core for later. It may be nil.
	Configure func(ctx context.Context, config json.RawMessage, core *Core) error
}

// Notifier tells somebody what happened. The same Event may come twice, under
// the same id.
type Notifier interface {
	// Notify says where the event went and what was answered, without secrets.
	Notify(ctx context.Context, event Event) (detail string, err error)
}

// Snapshotter takes snapshots.
type Snapshotter interface {
	// Plan says what speaks against Create; it changes nothing.
	Plan(ctx context.Context, req SnapshotRequest) (SnapshotPlan, error)
	// Create called again with the same operation id and stamp answers with the
	// set that is there.
	Create(ctx context.Context, req SnapshotRequest) (SnapshotResult, error)
}

type (
	// Error carries a code and hints back to deployer.
	Error           = proto.Error
	Event           = proto.Event
	Subvolume       = proto.Subvolume
	SnapshotRequest = proto.SnapshotRequest
	SnapshotPlan    = proto.SnapshotPlan
	// SnapshotResult holds whatever encodes to JSON as the agent's types do.
	SnapshotResult = proto.SnapshotResult[any, any]
)

// Core is deployer, as a plugin sees it: over the one connection that the
// broker gives.
type Core struct{ client pluginv1.CoreClient }

// Operate runs a typed operation on the host that ref stands for. result is
// a pointer to what the answer is decoded into, or nil. A failure is an *Error.
func (c *Core) Operate(ctx context.Context, ref, op string, args, result any) error {
	data, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("cannot encode the arguments of %s: %w", op, err)
	}
	resp, err := c.client.Operate(ctx, &pluginv1.OperateRequest{Host: ref, Op: op, Args: data})
	if err != nil {
		return failure(ctx, err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(resp.GetResult(), result); err != nil {
		return fmt.Errorf("cannot read the result of %s: %w", op, err)
	}
	return nil
}

// Secret returns a declared secret; an *Error with code not-found where the
// operator configured none.
func (c *Core) Secret(ctx context.Context, name string) (string, error) {
	resp, err := c.client.Secret(ctx, &pluginv1.SecretRequest{Name: name})
	if err != nil {
		return "", failure(ctx, err)
	}
	return resp.GetValue(), nil
}

// failure keeps the code, and takes the gRPC status off: a status that is
// passed on would look like one of the plugin's own.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return proto.ErrorOf(err)
}

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// Notify tells somebody what happened, and says where it went. Capability
// "notifier".
func (p *Plugin) Notify(ctx context.Context, event Event) (detail string, err error) {
	err = p.call(ctx, proto.Notifier, "notify", limits.notify, func(ctx context.Context, proc *process) error {
		return exchange(ctx, pluginv1.NewNotifierClient(proc.conn).Notify, event, &detail)
	})
	return detail, err
}

// Plan says what Create would do; it changes nothing. Capability "snapshotter".
func (p *Plugin) Plan(ctx context.Context, req SnapshotRequest) (plan SnapshotPlan, err error) {
	err = p.call(ctx, proto.Snapshotter, "plan", limits.plan, func(ctx context.Context, proc *process) error {
		return p.snapshot(ctx, req, false, pluginv1.NewSnapshotterClient(proc.conn).Plan, &plan)
	})
	return plan, err
}

// Create takes one set; all of it is durable when it returns. With the
// OperationID and Stamp of an earlier try it returns what that one made. A
// recipe must be made of the agent's operations: it will be run without anybody
// who could ask. Capability "snapshotter".
func (p *Plugin) Create(ctx context.Context, req SnapshotRequest) (result SnapshotResult, err error) {
	if req.OperationID == "" {
		return result, errors.New("internal error: a snapshot without an operation id could be taken twice")
	}
	if req.Stamp == "" {
		req.Stamp = time.Now().UTC().Format("20060102T150405Z")
	}
	err = p.call(ctx, proto.Snapshotter, "snapshot", limits.create, func(ctx context.Context, proc *process) error {
		return p.snapshot(ctx, req, true, pluginv1.NewSnapshotterClient(proc.conn).Create, &result)
	})
	for i, op := range result.Recipe {
		if op.Op == "" {
			return SnapshotResult{}, p.fault("protocol", fmt.Sprintf("entry %d of its recipe is no typed operation", i+1))
		}
	}
	return result, err
}

// snapshot is one try of a call, under a handle of its own.
func (p *Plugin) snapshot(ctx context.Context, req SnapshotRequest, write bool, with method, result any) error {
	handle, release := p.core.grant(ctx, req, write)
	defer release()
	req.HostRef = handle
	return exchange(ctx, with, req, result)
}

type method func(context.Context, *pluginv1.Request, ...grpc.CallOption) (*pluginv1.Response, error)

func exchange(ctx context.Context, with method, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := with(ctx, &pluginv1.Request{Json: data})
	if err != nil {
		return err
	}
	return json.Unmarshal(resp.GetJson(), out)
}

// call asks the plugin something that it advertises. When it crashes meanwhile,
// a new process is asked again, with the same ids: once. One that hangs is
// ended as well, but not asked again.
func (p *Plugin) call(ctx context.Context, capability, what string, limit time.Duration, ask func(context.Context, *process) error) error {
	if !slices.Contains(p.Info().GetCapabilities(), capability) {
		return p.fault("protocol", "it is no "+capability)
	}
	for again := false; ; again = true {
		proc, err := p.acquire(ctx)
		if err != nil {
			return err
		}
		err = within(ctx, limit, proc, ask)
		p.calls.Done()
		if err == nil {
			return nil
		}
		crashed := ctx.Err() == nil && gone(err)
		if crashed || errors.Is(err, errLimit) {
			p.drop(proc)
		}
		if !crashed || again {
			return p.failed(ctx, proc, what, err)
		}
	}
}

var errLimit = errors.New("no answer in time")

func within(ctx context.Context, limit time.Duration, proc *process, ask func(context.Context, *process) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errLimit)
	defer cancel()
	err := ask(ctx, proc)
	if ofTime(err) { // the other side saw the end first
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), errLimit) {
		return errLimit
	}
	return err
}

// ofTime tells whether an error is about the end of a call's time, also one that
// an operation of ours gave to the plugin, and the plugin to us.
func ofTime(err error) bool {
	code := status.Code(err)
	return code == codes.Canceled || code == codes.DeadlineExceeded ||
		err != nil && strings.Contains(err.Error(), context.DeadlineExceeded.Error())
}

// gone says that nobody is there to answer. What a plugin itself answers has
// another status: the sdk sees to that.
func gone(err error) bool { return status.Code(err) == codes.Unavailable }

// failed is the error of a call. What the plugin itself said goes through as
// it is; what happened to the plugin is said here.
func (p *Plugin) failed(ctx context.Context, proc *process, what string, err error) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return err
	case errors.Is(err, errLimit):
		return p.fault("hung", what+": no answer in time; it was ended")
	case ctx.Err() != nil:
		return ctx.Err()
	case gone(err):
		return p.fault("crashed", what+": it ended before it had answered"+proc.stderr.lastWords())
	case status.Code(err) == codes.Unimplemented:
		return p.fault("protocol", what+": it advertises what it does not serve", "ask its author for a version that speaks protocol 1")
	}
	said := proto.ErrorOf(err)
	return p.fault(said.Code, what+": "+said.Message, said.Hint...)
}

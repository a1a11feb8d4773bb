package host

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// core is deployer as one plugin sees it: it does what was granted, and tells
// the audit of everything that was asked.
type core struct {
	pluginv1.UnimplementedCoreServer
	plugin   string
	services Services
	info     *pluginv1.DescribeResponse // what the plugin declared

	mu     sync.Mutex
	grants map[string]*grant // by handle
}

// grant is what a plugin may do on one host during one call. Its handle is all
// that the plugin holds, and it is worth nothing afterwards.
type grant struct {
	ctx             context.Context
	host, operation string
	write           bool
	running         sync.WaitGroup
}

// grant makes a handle. release ends what was begun under it, and waits for that.
func (c *core) grant(ctx context.Context, req SnapshotRequest, write bool) (handle string, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	g := &grant{ctx: ctx, host: req.HostRef, operation: req.OperationID, write: write}
	handle = rand.Text()
	c.mu.Lock()
	c.grants[handle] = g
	c.mu.Unlock()
	return handle, func() {
		c.mu.Lock()
		delete(c.grants, handle)
		c.mu.Unlock()
		cancel()
		g.running.Wait()
	}
}

// Operate serves Core.Operate. It ends with the call that it belongs to, or
// with the plugin's own request.
func (c *core) Operate(request context.Context, req *pluginv1.OperateRequest) (_ *pluginv1.OperateResponse, err error) {
	call := &Call{Plugin: c.plugin, Name: req.GetOp()}
	defer c.audit(call, time.Now(), &err)
	g, err := c.permit(req.GetHost(), call)
	if err != nil {
		return nil, err
	}
	defer g.running.Done()
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	defer context.AfterFunc(request, cancel)()
	result, err := c.services.Operator.Operate(ctx, g.host, call.Name, json.RawMessage(req.GetArgs()))
	return &pluginv1.OperateResponse{Result: result}, carried(err)
}

// permit finds the grant behind a handle and says no to what it does not cover.
func (c *core) permit(handle string, call *Call) (*grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call.Write = c.services.Writes == nil || c.services.Writes(call.Name)
	g := c.grants[handle]
	if g != nil {
		call.Host, call.Operation = g.host, g.operation
	}
	switch {
	case c.services.Operator == nil || !slices.Contains(c.services.Allow, call.Name):
		return nil, call.refuse("the operation %q is not given to plugins")
	case !slices.Contains(c.info.GetOperations(), call.Name):
		return nil, call.refuse("the operation %q was not declared in Describe")
	case g == nil:
		return nil, call.refuse("the operation %q needs the handle of a host, which is good only during the call that it came with")
	case call.Write && !g.write:
		return nil, call.refuse("%q writes, and this call must not change the host")
	}
	g.running.Add(1)
	return g, nil
}

// Secret serves Core.Secret. The audit learns the name, never the value.
func (c *core) Secret(ctx context.Context, req *pluginv1.SecretRequest) (_ *pluginv1.SecretResponse, err error) {
	call := &Call{Plugin: c.plugin, Name: req.GetName()}
	defer c.audit(call, time.Now(), &err)
	if !slices.Contains(c.info.GetSecrets(), call.Name) {
		return nil, call.refuse("the secret %q was not declared in Describe")
	}
	var value string
	found := false
	if c.services.Secret != nil {
		value, found, err = c.services.Secret(ctx, call.Name)
	}
	if err == nil && !found {
		err = &proto.Error{Code: "not-found", Message: fmt.Sprintf("the secret %q is not configured", call.Name)}
	}
	return &pluginv1.SecretResponse{Value: value}, carried(err)
}

func (call *Call) refuse(format string) error {
	call.Refused = true
	return &proto.Error{Code: "refused", Message: fmt.Sprintf(format, call.Name)}
}

func (c *core) audit(call *Call, started time.Time, err *error) {
	call.Took = time.Since(started)
	if *err != nil {
		call.Error = (*err).Error()
	}
	if c.services.Audit != nil {
		c.services.Audit(*call)
	}
}

// carried gives an error the form that keeps code and hints on the wire.
func carried(err error) error {
	var of *agent.Error
	var own *proto.Error
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.As(err, &of):
		return &proto.Error{Code: of.Code, Message: err.Error(), Hint: of.Hint}
	}
	return &proto.Error{Code: "failed", Message: err.Error()}
}

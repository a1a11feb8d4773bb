package host

import (
	"context"
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
	pluginv1.UnimplementedHostServer
	plugin   string
	services Services

	mu     sync.Mutex
	info   Info
	grants map[string]*grant
}

func newCore(plugin string, services Services) *core {
	return &core{plugin: plugin, services: services, grants: map[string]*grant{}}
}

func (c *core) declare(info Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = info
}

// Operate serves Host.Operate.
func (c *core) Operate(ctx context.Context, req *pluginv1.OperateRequest) (*pluginv1.OperateResponse, error) {
	call := Call{Plugin: c.plugin, Service: "operate", Name: req.GetOp(), Args: req.GetArgs(), Started: time.Now()}
	call.Write = c.services.Writes == nil || c.services.Writes(call.Name)
	g, err := c.permit(req, &call)
	if err != nil {
		return nil, c.audited(call, err)
	}
	defer g.leave()
	ctx, cancel := g.join(ctx)
	defer cancel()
	result, err := c.services.Operator.Operate(ctx, g.hostRef, call.Name, json.RawMessage(call.Args))
	if err != nil {
		return nil, c.audited(call, carried(err))
	}
	return &pluginv1.OperateResponse{Result: result}, c.audited(call, nil)
}

// permit finds the grant behind a handle and says no to what it does not cover.
func (c *core) permit(req *pluginv1.OperateRequest, call *Call) (*grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.grants[req.GetHostRef()]
	if g != nil {
		call.Host, call.Operation = g.hostRef, g.operation
	}
	call.Refused = true
	switch {
	case c.services.Operator == nil || !slices.Contains(c.services.Allow, call.Name):
		return nil, refused("the operation %q is not given to plugins", call.Name)
	case !slices.Contains(c.info.Operations, call.Name):
		return nil, refused("the operation %q was not declared in Describe", call.Name)
	case g == nil:
		return nil, refused("the handle of a host is good only during the call that it came with")
	case call.Write && !g.write:
		return nil, refused("%q writes, and this call must not change the host", call.Name)
	}
	call.Refused = false
	g.enter()
	return g, nil
}

func (c *core) audited(call Call, err error) error {
	call.Took = time.Since(call.Started)
	if err != nil {
		call.Error = err.Error()
	}
	if c.services.Audit != nil {
		c.services.Audit(call)
	}
	return err
}

func (c *core) secrets() pluginv1.SecretsServer { return &secrets{core: c} }

type secrets struct {
	pluginv1.UnimplementedSecretsServer
	core *core
}

// Get serves Secrets.Get. The audit learns the name, never the value.
func (s *secrets) Get(ctx context.Context, req *pluginv1.GetRequest) (*pluginv1.GetResponse, error) {
	call := Call{Plugin: s.core.plugin, Service: "secret", Name: req.GetName(), Started: time.Now()}
	if !s.core.declaredSecret(call.Name) {
		call.Refused = true
		return nil, s.core.audited(call, refused("the secret %q was not declared in Describe", call.Name))
	}
	if s.core.services.Secret == nil {
		return nil, s.core.audited(call, unconfigured(call.Name))
	}
	value, ok, err := s.core.services.Secret(ctx, call.Name)
	if err != nil {
		return nil, s.core.audited(call, carried(err))
	}
	if !ok {
		return nil, s.core.audited(call, unconfigured(call.Name))
	}
	return &pluginv1.GetResponse{Value: value}, s.core.audited(call, nil)
}

func (c *core) declaredSecret(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.info.Secrets, name)
}

func refused(format string, args ...any) error {
	return &proto.Error{Code: "refused", Message: fmt.Sprintf(format, args...)}
}

func unconfigured(name string) error {
	return &proto.Error{Code: "not-found", Message: fmt.Sprintf("the secret %q is not configured", name)}
}

// carried gives an error the form that keeps code and hints on the wire.
func carried(err error) error {
	var e *agent.Error
	if errors.As(err, &e) {
		return &proto.Error{Code: e.Code, Message: err.Error(), Hint: e.Hint}
	}
	return &proto.Error{Code: "failed", Message: err.Error()}
}

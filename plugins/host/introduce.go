package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"

	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// introduce asks who a new process is and hands it what it needs. A process
// that was started again keeps what the first one was given, and no more.
func (p *Plugin) introduce(ctx context.Context, l *link) error {
	ask := func(what string, do work) error {
		err := within(p.limits.describe, do)(ctx, l)
		if err == nil {
			return nil
		}
		return p.rejected(ctx, what, err)
	}
	if err := ask("describe", p.describe); err != nil {
		return err
	}
	return ask("configuration", p.configure)
}

// rejected is failed without the lock, which is held while a process starts.
func (p *Plugin) rejected(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil && gone(err) {
		return &Error{Plugin: p.spec.Name, Code: "crashed", Message: what + ": it ended before it could answer" + said(p.last), Err: err}
	}
	return p.failed(ctx, what, err, false)
}

func (p *Plugin) describe(ctx context.Context, l *link) error {
	resp, err := pluginv1.NewPluginClient(l.conn).Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil || p.info.Name != "" {
		return err
	}
	info := Info{
		Name:         resp.GetName(),
		Version:      resp.GetVersion(),
		Capabilities: resp.GetCapabilities(),
		Operations:   resp.GetOperations(),
		Secrets:      resp.GetSecrets(),
		Schema:       resp.GetSchema(),
	}
	if err := p.acceptable(info); err != nil {
		return err
	}
	p.info = info
	p.core.declare(info)
	return nil
}

// acceptable refuses at once what would be refused in the middle of a run.
func (p *Plugin) acceptable(info Info) error {
	e := &Error{Plugin: p.spec.Name, Code: "protocol"}
	if info.Name == "" {
		e.Message = "it does not say its name"
		return e
	}
	for _, op := range info.Operations {
		if !slices.Contains(p.core.services.Allow, op) {
			e.Message = fmt.Sprintf("it wants the operation %q, which plugins are not given", op)
			e.Hint = []string{"plugins are given: " + strings.Join(p.core.services.Allow, ", ")}
			return e
		}
	}
	return nil
}

// configure serves core's side on one brokered connection, for as long as the
// process lives, and tells the plugin where.
func (p *Plugin) configure(ctx context.Context, l *link) error {
	id := l.broker.NextId()
	go l.broker.AcceptAndServe(id, func(opts []grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(opts...)
		pluginv1.RegisterHostServer(s, p.core)
		pluginv1.RegisterSecretsServer(s, p.core.secrets())
		return s
	})
	_, err := pluginv1.NewPluginClient(l.conn).Configure(ctx, &pluginv1.ConfigureRequest{Config: p.spec.Config, Core: id})
	return err
}

// Health asks whether the plugin could do its work now.
func (p *Plugin) Health(ctx context.Context) error {
	return p.call(ctx, "health", within(p.limits.describe, func(ctx context.Context, l *link) error {
		resp, err := pluginv1.NewPluginClient(l.conn).Health(ctx, &pluginv1.HealthRequest{})
		if err == nil && resp.GetProblem() != "" {
			return &Error{Plugin: p.spec.Name, Code: "unhealthy", Message: resp.GetProblem()}
		}
		return err
	}))
}

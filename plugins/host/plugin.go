package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// limits is how long a plugin may take for what.
var limits = struct{ start, describe, notify, plan, create, drain time.Duration }{
	start:    15 * time.Second,
	describe: 5 * time.Second,
	notify:   10 * time.Second,
	plan:     30 * time.Second,
	create:   10 * time.Minute, // dirty data is written out first
	drain:    5 * time.Second,
}

// Plugin is a plugin at work. Its methods may be called from several goroutines.
type Plugin struct {
	spec  Spec
	core  *core
	start func(ctx context.Context) (*process, error)

	mu     sync.Mutex // guards what follows, and is held while a process starts
	now    *process   // nil after a crash, until the next call
	closed bool
	calls  sync.WaitGroup
}

// Launch starts a plugin, asks what it is and configures it. ctx is for that
// alone: the plugin lives until Close.
func Launch(ctx context.Context, spec Spec, services Services) (*Plugin, error) {
	if services.Logger == nil {
		services.Logger = zap.NewNop()
	}
	return launch(ctx, spec, services, func(ctx context.Context) (*process, error) { return start(ctx, spec, services.Logger) })
}

// Attach is Launch for a connection that is there already, as go-plugin's
// tests make one.
func Attach(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn, spec Spec, services Services) (*Plugin, error) {
	there := &process{broker: broker, conn: conn, stderr: &tail{}, end: func(bool) {}}
	return launch(ctx, spec, services, func(context.Context) (*process, error) { return there, nil })
}

func launch(ctx context.Context, spec Spec, services Services, start func(context.Context) (*process, error)) (*Plugin, error) {
	p := &Plugin{spec: spec, start: start, core: &core{plugin: spec.Name, services: services, grants: map[string]*grant{}}}
	if _, err := p.acquire(ctx); err != nil {
		return nil, err
	}
	p.calls.Done()
	return p, nil
}

// acquire is the process that is there, or a new one after a crash. Close
// waits for the p.calls.Done that ends its use.
func (p *Plugin) acquire(ctx context.Context) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, p.fault("closed", "is closed")
	}
	if p.now == nil {
		proc, err := p.connect(ctx)
		if err != nil {
			return nil, err
		}
		p.now = proc
	}
	p.calls.Add(1)
	return p.now, nil
}

// connect starts a process, asks who it is and hands it what it needs.
func (p *Plugin) connect(ctx context.Context) (*process, error) {
	proc, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	what := "describe"
	err = within(ctx, limits.describe, proc, p.describe)
	if err == nil {
		what = "configuration"
		err = within(ctx, limits.describe, proc, p.configure)
	}
	if err == nil {
		return proc, nil
	}
	proc.end(true)
	return nil, p.failed(ctx, proc, what, err)
}

// describe keeps what the first process said: one that was started again gets
// no more than that.
func (p *Plugin) describe(ctx context.Context, proc *process) error {
	info, err := pluginv1.NewPluginClient(proc.conn).Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil || p.core.info != nil {
		return err
	}
	if info.GetName() == "" {
		return p.fault("protocol", "it does not say its name")
	}
	for _, op := range info.GetOperations() {
		if allow := p.core.services.Allow; !slices.Contains(allow, op) {
			return p.fault("protocol", fmt.Sprintf("it wants the operation %q, which plugins are not given", op),
				"plugins are given: "+strings.Join(allow, ", "))
		}
	}
	p.core.info = info
	return nil
}

// configure serves core on one brokered connection, for as long as the process
// lives, and tells the plugin where.
func (p *Plugin) configure(ctx context.Context, proc *process) error {
	id, listening := proc.broker.NextId(), make(chan struct{})
	go proc.broker.AcceptAndServe(id, func(opts []grpc.ServerOption) *grpc.Server {
		defer close(listening)
		s := grpc.NewServer(opts...)
		pluginv1.RegisterCoreServer(s, p.core)
		return s
	})
	select { // a plugin that dials before is turned away
	case <-listening:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := pluginv1.NewPluginClient(proc.conn).Configure(ctx, &pluginv1.ConfigureRequest{Config: p.spec.Config, Core: id})
	return err
}

// drop ends a process that can do no more. The next call starts another one.
func (p *Plugin) drop(proc *process) {
	p.mu.Lock()
	mine := p.now == proc
	if mine {
		p.now = nil
	}
	p.mu.Unlock()
	if mine {
		proc.end(true)
	}
}

// Close waits for calls under way, until ctx ends but no longer than five
// seconds, and ends the process. go-plugin would cut them off.
func (p *Plugin) Close(ctx context.Context) error {
	p.mu.Lock()
	proc := p.now
	p.closed, p.now = true, nil
	p.mu.Unlock()
	if proc == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limits.drain)
	defer cancel()
	drained := make(chan struct{})
	go func() { p.calls.Wait(); close(drained) }()
	select {
	case <-drained:
		proc.end(false)
		return nil
	case <-ctx.Done():
		proc.end(true)
		return p.fault("closed", "was ended in the middle of its work")
	}
}

// Info is what the plugin says of itself.
func (p *Plugin) Info() *pluginv1.DescribeResponse { return p.core.info }

func (p *Plugin) fault(code, message string, hint ...string) *Error {
	return &Error{Plugin: p.spec.Name, Code: code, Message: message, Hint: hint}
}

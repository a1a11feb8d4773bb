package host

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hbohlen/deployer/plugins/proto"
)

// limits is how long a plugin may take for what.
type limits struct{ start, describe, notify, plan, silence, drain time.Duration }

var defaults = limits{
	start:    15 * time.Second,
	describe: 5 * time.Second,
	notify:   10 * time.Second,
	plan:     30 * time.Second,
	silence:  30 * time.Second,
	drain:    5 * time.Second,
}

// Plugin is a plugin at work. Its methods may be called from several goroutines.
type Plugin struct {
	spec   Spec
	core   *core
	limits limits
	start  func(ctx context.Context) (*link, error)
	info   Info

	mu     sync.Mutex // guards what follows, and is held while a process starts
	link   *link      // nil after a crash, until the next call
	last   *tail
	closed bool
	calls  sync.WaitGroup
}

// Launch starts a plugin, asks what it is and configures it. ctx is for that
// alone: the plugin lives until Close.
func Launch(ctx context.Context, spec Spec, services Services) (*Plugin, error) {
	path, err := trusted(spec)
	if err != nil {
		return nil, err
	}
	spec.Path = path
	if err := pinned(spec); err != nil {
		return nil, err
	}
	p := newPlugin(spec, services)
	p.start = func(ctx context.Context) (*link, error) {
		return started(ctx, p.spec, p.core.services.Logger, p.limits.start)
	}
	return p.launched(ctx)
}

// Attach is Launch for a connection that is there already, as go-plugin's
// tests make one: nothing is started, and nothing started again.
func Attach(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn, spec Spec, services Services) (*Plugin, error) {
	p := newPlugin(spec, services)
	once := &link{broker: broker, conn: conn, end: func() {}, kill: func() {}}
	p.start = func(context.Context) (*link, error) {
		if once == nil {
			return nil, &Error{Plugin: spec.Name, Code: "crashed", Message: "it is gone, and was not started here"}
		}
		l := once
		once = nil
		return l, nil
	}
	return p.launched(ctx)
}

func newPlugin(spec Spec, services Services) *Plugin {
	if services.Logger == nil {
		services.Logger = zap.NewNop()
	}
	return &Plugin{spec: spec, limits: defaults, core: newCore(spec.Name, services)}
}

func (p *Plugin) launched(ctx context.Context) (*Plugin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	p.link = l
	return p, nil
}

// connect starts a process and brings it to where it can be called.
func (p *Plugin) connect(ctx context.Context) (*link, error) {
	l, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	p.last = l.stderr
	if err := p.introduce(ctx, l); err != nil {
		l.kill()
		l.end()
		return nil, err
	}
	return l, nil
}

// Describe is what the plugin says of itself.
func (p *Plugin) Describe() Info { return p.info }

// Name is the plugin's name in deployer.yaml.
func (p *Plugin) Name() string { return p.spec.Name }

// Snapshotter is the plugin as a provider of snapshots, if it advertises that.
func (p *Plugin) Snapshotter() (Snapshotter, bool) {
	if !slices.Contains(p.info.Capabilities, proto.Snapshotter) {
		return nil, false
	}
	return snapshotter{p}, true
}

// Notifier is the plugin as a notifier, if it advertises that.
func (p *Plugin) Notifier() (Notifier, bool) {
	if !slices.Contains(p.info.Capabilities, proto.Notifier) {
		return nil, false
	}
	return notifier{p}, true
}

// Close waits for calls under way, until ctx ends but no longer than five
// seconds, and ends the process. go-plugin would cut them off.
func (p *Plugin) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	l := p.link
	p.link = nil
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, p.limits.drain)
	defer cancel()
	drained := make(chan struct{})
	go func() { p.calls.Wait(); close(drained) }()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = &Error{Plugin: p.spec.Name, Code: "closed", Message: "was ended in the middle of its work"}
	}
	if l != nil {
		if err != nil {
			l.kill()
		}
		l.end()
	}
	return err
}

// lastWords ends a sentence with what the process printed last.
func (p *Plugin) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return said(p.last)
}

// gone says whether an error means that nobody is there to answer.
func gone(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

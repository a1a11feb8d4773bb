package host

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// work is one try of a call. It is tried again, with the same ids, by a new
// process: once.
type work func(ctx context.Context, l *link) error

func (p *Plugin) call(ctx context.Context, what string, do work) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.calls.Done()
	for again := false; ; again = true {
		l, err := p.live(ctx)
		if err != nil {
			return err
		}
		err = do(ctx, l)
		if err == nil {
			return nil
		}
		if crashed := p.lost(ctx, l, err); !crashed || again {
			return p.failed(ctx, what, err, crashed)
		}
	}
}

// enter counts a call, so that Close can wait for it.
func (p *Plugin) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return &Error{Plugin: p.spec.Name, Code: "closed", Message: "is closed"}
	}
	p.calls.Add(1)
	return nil
}

// live is the process that is there, or a new one after a crash.
func (p *Plugin) live(ctx context.Context) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &Error{Plugin: p.spec.Name, Code: "closed", Message: "is closed"}
	}
	if p.link != nil {
		return p.link, nil
	}
	l, err := p.connect(ctx)
	p.link = l
	return l, err
}

// lost says whether the process crashed under a call, and drops it then. One
// that hangs is dropped as well, but its call is not made again.
func (p *Plugin) lost(ctx context.Context, l *link, err error) bool {
	hung := errors.Is(err, errLimit) || errors.Is(err, errSilent)
	code := status.Code(err)
	crashed := !hung && ctx.Err() == nil && (code == codes.Unavailable || code == codes.Canceled) && !l.alive(ctx)
	if hung || crashed {
		p.drop(l)
	}
	return crashed
}

func (p *Plugin) drop(l *link) {
	p.mu.Lock()
	mine := p.link == l
	if mine {
		p.link = nil
	}
	p.mu.Unlock()
	if mine {
		l.kill()
		l.end()
	}
}

// within is a work that has a limit of its own.
func within(limit time.Duration, do work) work {
	return func(ctx context.Context, l *link) error {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, errLimit)
		defer cancel()
		return because(ctx, do(ctx, l))
	}
}

// because replaces an error by the reason why core itself ended the call.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err != nil && (errors.Is(cause, errLimit) || errors.Is(cause, errSilent)) {
		return cause
	}
	return err
}

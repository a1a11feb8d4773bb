package host

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// grant is what a plugin may do on one host during one call. Its handle is all
// that the plugin holds, and it is worth nothing afterwards.
type grant struct {
	ctx       context.Context
	hostRef   string
	operation string
	write     bool

	running sync.WaitGroup
	mu      sync.Mutex
	busy    int
	last    time.Time // when something was last heard or done
}

// grant makes a handle. release ends what was begun under it, and waits for that.
func (c *core) grant(ctx context.Context, hostRef, operation string, write bool) (handle string, g *grant, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	g = &grant{ctx: ctx, hostRef: hostRef, operation: operation, write: write, last: time.Now()}
	handle = rand.Text()
	c.mu.Lock()
	c.grants[handle] = g
	c.mu.Unlock()
	return handle, g, func() {
		c.mu.Lock()
		delete(c.grants, handle)
		c.mu.Unlock()
		cancel()
		g.running.Wait()
	}
}

// join is a context that ends with the call or with the plugin's own request,
// and has the call's values.
func (g *grant) join(request context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(g.ctx)
	stop := context.AfterFunc(request, cancel)
	return ctx, func() { stop(); cancel() }
}

func (g *grant) enter() {
	g.running.Add(1)
	g.mark(1)
}

func (g *grant) leave() {
	g.mark(-1)
	g.running.Done()
}

func (g *grant) heard() { g.mark(0) }

func (g *grant) mark(more int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy += more
	g.last = time.Now()
}

// silent is how long nothing was heard; zero while core itself is at work.
func (g *grant) silent() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy > 0 {
		return 0
	}
	return time.Since(g.last)
}

// watch calls off a call that has been silent for too long. Its length is no
// reason: a large set takes what it takes.
func (g *grant) watch(ctx context.Context, limit time.Duration, off context.CancelCauseFunc) {
	for g.silent() < limit {
		select {
		case <-ctx.Done():
			return
		case <-time.After(limit / 10):
		}
	}
	off(errSilent)
}

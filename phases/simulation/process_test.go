package simulation

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/hbohlen/deployer/phases/agent"
)

// process is one process of a host: an agent that serves a connection, a job, a
// guard. It runs as goroutines; once it is dead, nothing of what they still do
// has an effect, as after kill -9.
type process struct {
	m      *machine
	by     *controller // who asked for it; nil: the host itself
	name   string      // in the names of points: serve, job, restore, guard
	unit   string      // "": not one's
	began  bool        // it has a receipt
	stale  bool        // its controller was taken over from before that
	late   bool        // it was decided to go back before that
	last   string      // the point it came to last
	dead   atomic.Bool
	calls  atomic.Int32 // since it died
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when its goroutines have run out
	killed chan struct{} // closed when it is dead
}

func (m *machine) spawn(name string, run func(ctx context.Context, p *process)) *process {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &process{m: m, name: name, cancel: cancel, done: make(chan struct{}), killed: make(chan struct{})}
	m.w.mu.Lock()
	m.procs[p] = true
	m.w.mu.Unlock()
	go func() {
		defer func() {
			m.w.mu.Lock()
			delete(m.procs, p)
			m.w.mu.Unlock()
			m.disk.release(p)
			close(p.done)
		}()
		defer cancel(nil)
		run(ctx, p)
	}()
	return p
}

// kill is kill -9.
func (p *process) kill() {
	if p.dead.Swap(true) {
		return
	}
	p.m.disk.release(p)
	close(p.killed)
	p.cancel(errDead) // only so that its goroutines run out sooner
}

// point is where something may be killed.
func (p *process) point(label string) {
	if p.alive() == nil {
		p.last = nameless(label)
		p.m.w.point(p.m.name+" "+p.name, label, p)
	}
}

// at is point, and tells whether the process came past it.
func (p *process) at(label string) bool {
	p.point(label)
	return p.alive() == nil
}

// alive is an error for a dead process. One that asks for ever is stopped.
func (p *process) alive() error {
	if !p.dead.Load() {
		return nil
	}
	if p.calls.Add(1) > 1000 {
		runtime.Goexit()
	}
	return errDead
}

// options are an agent's for this process.
func (p *process) options() agent.Options {
	m := p.m
	return agent.Options{
		Root: m.root(), Prefix: m.dir, Path: "/bin", Self: []string{"agent"},
		Units: manager{m, p}, Journal: manager{m, p}, Disk: p.disk, Exec: p.exec, Clock: m, Sync: func() {}, Snapper: p.snapper(),
		Digest: "cafe", Stdout: io.Discard, Unfenced: m.w.lax == p.name+" epoch", Undecided: m.w.lax == p.name+" decision",
	}
}

func (p *process) disk(dir string) (agent.Disk, error) {
	if err := p.alive(); err != nil {
		return nil, err
	}
	if dir == p.m.root() {
		return mount{p.m.disk, p}, nil
	}
	d, err := agent.Folder(dir)
	return folder{d, p, dir}, err
}

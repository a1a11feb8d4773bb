package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/phases/pipeline"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// controller is one process of deployer.
type controller struct {
	w       *world
	dead    atomic.Bool
	killed  chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	stop    chan struct{}
	paused  chan struct{} // nil: it is not; closed: it goes on
	awake   bool
	last    string        // the point it came to last
	stopped chan struct{} // closed when it is paused
	lease   *state.Lease
	papers  []*paper
	out     *phases.Outcome // how it ended
}

const runID = "r1"

func (w *world) start() *controller {
	c := &controller{w: w, killed: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	w.mu.Lock()
	w.now = c
	w.mu.Unlock()
	return c
}

// kill is kill -9, or with a cut the end of its machine: what it still does has no effect, its connections end.
func (c *controller) kill(cut cut) {
	if c.dead.Swap(true) {
		return
	}
	close(c.killed)
	c.wake()
	for _, m := range c.w.machines {
		c.w.mu.Lock()
		conns := m.link.conns
		c.w.mu.Unlock()
		for n := range conns {
			if n.c == c {
				n.lose(0)
			}
		}
	}
	c.cancel()
	for _, p := range c.papers {
		if cut != "" {
			p.crash(cut)
		}
		_ = p.File.Close()
	}
	c.w.mu.Lock()
	l := c.lease
	c.w.mu.Unlock()
	if l != nil {
		_ = l.Release()
	}
}

// pause is SIGSTOP: nothing leaves it or comes to it until it is woken. (Its
// goroutines go on to where they wait for that: a bubble's time stands still
// while one of them waits for a mutex that another one has.)
func (c *controller) pause(taken bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.paused != nil {
		return
	}
	c.paused = make(chan struct{})
	if taken {
		close(c.stopped)
	}
}

func (c *controller) wake() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.paused != nil && !c.awake {
		c.awake = true
		close(c.paused)
	}
}

func (c *controller) isPaused() bool {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.paused != nil && !c.awake
}

func (c *controller) hold() {
	c.w.mu.Lock()
	p := c.paused
	c.w.mu.Unlock()
	if p != nil {
		<-p
	}
}

// hasLease keeps the run's lease until the controller ends.
func (c *controller) hasLease(l *state.Lease) error {
	c.w.mu.Lock()
	c.lease = l
	c.w.mu.Unlock()
	if c.alive() != nil {
		_ = l.Release()
	}
	return c.alive()
}

func (c *controller) alive() error {
	if c.dead.Load() {
		return errDead
	}
	return nil
}

func (c *controller) point(label string) {
	if c.alive() == nil {
		c.w.point("controller", label, nil)
	}
}

// run makes the run: the shipped runbook, compiled for this world.
func (c *controller) run() *phases.Run {
	p := &runbooks.Project{Dir: c.w.dir, Flake: ".", Hosts: map[string]*runbooks.Host{}}
	for _, m := range c.w.machines {
		p.Hosts[m.name] = &runbooks.Host{Name: m.name, Address: m.name, System: m.name, Build: "controller"}
	}
	p.Snapshots = &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/persist": {Path: "/persist", OnRollback: "keep"}}}
	rb := shipped()
	local := localhost{c}
	r, err := phases.NewRun(pipeline.Kinds, p, rb, phases.Tools{
		Dial: func(ctx context.Context, h *runbooks.Host) (host.Host, error) {
			return c.w.machine(h.Name).link.dial(ctx, c)
		},
		Controller: local, Nix: &nix.Nix{Host: local, Dir: c.w.dir}, Agents: phasetest.Agents{}, Now: time.Now, Owner: "me@here", Snapshots: provider{c}, Ask: local,
	})
	check(err)
	return r
}

// shipped is the runbook that deployer ships, read once.
var shipped = sync.OnceValue(func() *runbooks.Runbook {
	p := &runbooks.Project{Hosts: map[string]*runbooks.Host{"staging": {Name: "staging"}, "production": {Name: "production"}}}
	vars := map[string]string{"burn_in": "2m", "look_every": "1m", "rollback_within": "1m"}
	rb, err := runbooks.LoadRunbook("production", "/nowhere", vars, p)
	check(err)
	return rb
})

// open makes the run's folder, its lease and its journal.
func (c *controller) open(r *phases.Run, id string) *phases.Log {
	r.ID = id
	r.Dir = c.w.runDir(id)
	check(os.MkdirAll(r.Dir.OutputDir(), 0o700))
	check(os.WriteFile(filepath.Join(r.Dir.Path, "ballast"), nil, 0o600)) // a real one takes its time
	lease, err := r.Dir.Lease(true)
	check(err)
	if c.hasLease(lease) != nil {
		return &phases.Log{}
	}
	j, err := state.Create(r.Dir.Path, lease)
	check(err)
	return &phases.Log{Run: r.ID, Journal: c.wrap(j)}
}

func (w *world) runDir(id string) *state.RunDir {
	return &state.RunDir{ID: id, Path: filepath.Join(w.dir, "store", id)}
}

// does runs the controller to its end, or to the moment when it is killed or
// paused: nil.
func (c *controller) does(work func() *phases.Outcome) *phases.Outcome {
	done := make(chan *phases.Outcome, 1)
	go func() {
		o := work()
		c.w.mu.Lock()
		c.out = o
		c.w.mu.Unlock()
		done <- o
	}()
	select {
	case o := <-done:
		if c.alive() == nil {
			return o
		}
	case <-c.killed:
	case <-c.stopped:
	}
	return nil
}

// execute is `deployer run`.
func (c *controller) execute() *phases.Outcome {
	r := c.run()
	if _, err := r.MakePlan(c.ctx, &phases.Log{}); err != nil {
		return failed(err)
	}
	c.w.plan0 = r.Plan
	runner := &phases.Runner{Run: r, Log: c.open(r, runID), Stop: c.stop}
	created := state.Created{Type: r.Type, Runbook: r.Runbook.Name, Plan: r.Plan.Digest, Hosts: []string{"staging", "production"}, By: r.Owner}
	_ = runner.Log.Record(state.Record{Kind: state.RunCreated}, created)
	return runner.Execute(c.ctx)
}

// Sign is the person at the keyboard.
func (l localhost) Sign(context.Context, string, string) (string, error) { return "me", nil }

// localhost answers the commands that a controller runs on its own machine.
type localhost struct{ c *controller }

func (l localhost) Name() string                             { return "controller" }
func (l localhost) Login() (string, bool)                    { return "me", false }
func (l localhost) Lost() <-chan struct{}                    { return nil }
func (l localhost) Close() error                             { return nil }
func (l localhost) Fresh(context.Context) (host.Host, error) { return l, nil }
func (l localhost) Start(context.Context, host.Command) (host.Process, error) {
	return nil, errors.New("no processes here")
}
func (l localhost) Upload(context.Context, io.Reader, string, fs.FileMode) error {
	return errors.New("no upload here")
}

func (l localhost) Run(_ context.Context, cmd host.Command) (host.Result, error) {
	if err := l.c.alive(); err != nil {
		return host.Result{}, err
	}
	line := strings.Join(cmd.Args, " ")
	switch {
	case cmd.Args[0] == "git":
		return host.Result{Code: 1}, nil
	case strings.Contains(line, " eval "):
		b, _ := json.Marshal(map[string]string{"drv": newSystem + ".drv", "out": newSystem, "kind": "x86_64-linux"})
		return host.Result{Stdout: b}, nil
	case strings.Contains(line, " copy "):
		return l.copy(cmd)
	case strings.Contains(line, "path-info"):
		return host.Result{Stdout: []byte("{}")}, nil
	case cmd.Args[0] == "nix-store", cmd.Args[0] == "nix-instantiate", strings.Contains(line, "flake metadata"), strings.Contains(line, "config"):
		return host.Result{Stdout: []byte("{}")}, nil
	}
	l.c.w.fail("controller: unexpected command %q", cmd.Args)
	return host.Result{Code: 127}, nil
}

// copy is `nix copy`.
func (l localhost) copy(cmd host.Command) (host.Result, error) {
	for _, m := range l.c.w.machines {
		for _, a := range cmd.Args {
			if a != "ssh-ng://"+m.name {
				continue
			}
			l.c.w.point(m.name+" link", "copy", nil)
			l.c.hold()
			l.c.w.mu.Lock()
			reachable := m.up && !time.Now().Before(m.link.until)
			l.c.w.mu.Unlock()
			if !reachable || l.c.alive() != nil {
				if cmd.Stderr != nil {
					fmt.Fprintln(cmd.Stderr, "error: cannot connect")
				}
				return host.Result{Code: 1}, nil
			}
			m.system(newSystem)
		}
	}
	return host.Result{}, nil
}

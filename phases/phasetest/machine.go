package phasetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
)

// The systems of a Machine: what it runs at first, and what it is to run.
const (
	Old = "/nix/store/0000000000000000000000000000000a-nixos-system-old"
	New = "/nix/store/0000000000000000000000000000000b-nixos-system-new"
)

// ErrDie is what a Handler returns to end the agent without an answer, as
// kill -9 would. The connection stays.
var ErrDie = errors.New("the agent dies")

// Handler answers one operation. An *agent.Error reaches the caller as it is.
type Handler func(args json.RawMessage) (any, error)

// World is all that a Machine is and was asked for.
type World struct {
	Facts    agent.Facts
	Files    map[string]agent.File
	Recipe   agent.Recipe       // what is stored
	Handlers map[string]Handler // by operation, in place of the Machine's own
	Broken   map[string]bool    // operations of a recipe that fail, by Label
	Asked    []string           // operations, in order
	Closed   string             // how the lane was closed
	receipts map[string]agent.Receipt
	open     []*hosttest.Fake
}

// Machine is a fake host with a fake agent. All connections share its World.
type Machine struct {
	Fake  *hosttest.Fake // the first connection, and the script of plain commands
	Trace *Trace
	t     testing.TB
	mu    sync.Mutex
	w     World
}

// Make makes a Machine that runs and boots Old, as generation 7.
func Make(t testing.TB, name string) *Machine {
	m := &Machine{Fake: hosttest.New(t, name), Trace: &Trace{}, t: t}
	m.w = World{
		Files: map[string]agent.File{}, Handlers: map[string]Handler{}, Broken: map[string]bool{},
		receipts: map[string]agent.Receipt{}, open: []*hosttest.Fake{m.Fake},
		Facts: agent.Facts{
			Hostname: name, Arch: "x86_64", BootID: "boot-1", OS: "nixos", User: "root", Root: true, Nix: "2.24.0", System: Old,
			Profile: agent.Profile{Path: agent.SystemProfile, Generation: 7, System: Old, Generations: []agent.Generation{{Number: 7, System: Old}}},
			Boot:    agent.Boot{Loader: "systemd-boot", Default: "nixos-generation-7.conf", System: Old},
			Failed:  []string{}, Launcher: true,
		},
	}
	m.Fake.On(hosttest.Prefix(agent.LauncherPath, "run")).Do(m.Serve)
	return m
}

// With looks at the World, or changes it.
func (m *Machine) With(f func(w *World)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.w)
}

// World is the World as it is now.
func (m *Machine) World() (w World) { m.With(func(now *World) { w = *now }); return w }

// Handle answers an operation in place of the Machine.
func (m *Machine) Handle(op string, h Handler) { m.With(func(w *World) { w.Handlers[op] = h }) }

// Away cuts every connection and refuses new ones with err; nil lets them in.
func (m *Machine) Away(err error) {
	m.Fake.Unreachable(err)
	var open []*hosttest.Fake
	m.With(func(w *World) { open, w.open = w.open, nil })
	for _, f := range open {
		f.Lose()
	}
}

// conn is a connection that `nix copy` can use, too, and that Away finds.
type conn struct {
	*hosttest.Fake
	m *Machine
}

func (conn) NixStoreURL() string  { return "ssh-ng://fake" }
func (conn) NixSSHOpts() []string { return []string{"-p", "22"} }

func (c conn) Fresh(ctx context.Context) (host.Host, error) {
	h, err := c.Fake.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	f := h.(*hosttest.Fake)
	c.m.With(func(w *World) { w.open = append(w.open, f) })
	return conn{f, c.m}, nil
}

// Serve is the agent: one request after another, until its streams end.
func (m *Machine) Serve(cmd host.Command, in io.Reader, out io.Writer) host.Result {
	for r := bufio.NewReader(in); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return host.Result{}
		}
		var req agent.Request
		if json.Unmarshal(line, &req) != nil || req.ID == 0 {
			continue
		}
		result, err := m.call(cmd.Args[2], req)
		if errors.Is(err, ErrDie) {
			return host.Result{Code: 137, Signal: "KILL"}
		}
		res := agent.Response{ID: req.ID}
		if res.Result, _ = json.Marshal(result); err != nil && !errors.As(err, &res.Error) {
			res.Error = &agent.Error{Code: "failed", Message: err.Error()}
		}
		line, _ = json.Marshal(res)
		_, _ = out.Write(append(line, '\n'))
	}
}

func (m *Machine) call(digest string, req agent.Request) (any, error) {
	if req.Op == agent.OpHello {
		return agent.Hello{Digest: digest, BootID: m.World().Facts.BootID}, nil
	}
	var h Handler
	m.With(func(w *World) { w.Asked, h = append(w.Asked, req.Op), w.Handlers[req.Op] })
	if h != nil {
		return h(req.Args)
	}
	return m.Default(req.Op, req.Args)
}

// Trace is what happened, in order, on several machines and the controller.
type Trace struct {
	mu   sync.Mutex
	what []string
}

// Add adds one thing.
func (t *Trace) Add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.what = append(t.what, what)
}

func (t *Trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.what, " ")
}

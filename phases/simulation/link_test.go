package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
)

// link is the way to a host.
type link struct {
	m     *machine
	until time.Time // it is down until then
	conns map[*conn]bool
}

// unnoticed is how long the host's end of a connection lives that was cut: the
// agent there cannot tell.
const unnoticed = 15 * time.Second

// cut ends every connection, and refuses new ones for a while.
func (l *link) cut(d time.Duration) {
	l.m.w.mu.Lock()
	l.until = time.Now().Add(d)
	l.m.w.mu.Unlock()
	l.drop()
}

func (l *link) drop() {
	l.m.w.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.m.w.mu.Unlock()
	for c := range conns {
		c.lose(unnoticed)
	}
}

// dial is a new connection of a controller.
func (l *link) dial(ctx context.Context, c *controller) (host.Host, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	l.m.w.mu.Lock()
	defer l.m.w.mu.Unlock()
	if !l.m.up || time.Now().Before(l.until) {
		return nil, &host.Error{Kind: host.Refused, Host: l.m.name, Err: errors.New("nothing answers")}
	}
	n := &conn{l: l, c: c, lost: make(chan struct{})}
	if l.conns == nil {
		l.conns = map[*conn]bool{}
	}
	l.conns[n] = true
	return n, ctx.Err()
}

// conn is one connection.
type conn struct {
	l    *link
	c    *controller
	lost chan struct{}
	once sync.Once
	lag  time.Duration // after which the host's end notices
}

var (
	_ host.Host  = &conn{}
	_ nix.Target = &conn{}
)

func (c *conn) lose(lag time.Duration) {
	c.once.Do(func() {
		c.lag = lag
		close(c.lost)
	})
}

func (c *conn) isLost() bool {
	select {
	case <-c.lost:
		return true
	default:
		return false
	}
}

func (c *conn) Name() string                                 { return c.l.m.name }
func (c *conn) Login() (string, bool)                        { return "root", true }
func (c *conn) Lost() <-chan struct{}                        { return c.lost }
func (c *conn) Fresh(ctx context.Context) (host.Host, error) { return c.l.dial(ctx, c.c) }
func (c *conn) NixStoreURL() string                          { return "ssh-ng://" + c.l.m.name }
func (c *conn) NixSSHOpts() []string                         { return nil }
func (c *conn) Upload(context.Context, io.Reader, string, fs.FileMode) error {
	return errors.New("no upload")
}

func (c *conn) Close() error {
	c.lose(0)
	return nil
}

func (c *conn) gone() error {
	if c.isLost() {
		return &host.Error{Kind: host.Lost, Host: c.l.m.name, Err: errors.New("the connection is gone")}
	}
	return nil
}

// Run answers the plain commands of planning.
func (c *conn) Run(_ context.Context, cmd host.Command) (host.Result, error) {
	if err := c.gone(); err != nil {
		return host.Result{}, err
	}
	if len(cmd.Args) > 1 && cmd.Args[0] == "sh" && cmd.Args[1] == "-s" {
		return host.Result{Stdout: []byte(c.l.m.facts())}, nil
	}
	if len(cmd.Args) > 1 && cmd.Args[0] == "sh" {
		return host.Result{Stdout: []byte("\nclosure\n{}")}, nil
	}
	c.l.m.w.fail("%s: unexpected command %q", c.l.m.name, cmd.Args)
	return host.Result{Code: 127}, nil
}

// facts is what the facts script prints.
func (m *machine) facts() string {
	var b strings.Builder
	say := func(k, v string) { fmt.Fprintf(&b, "%s=%s\n", k, v) }
	say("deployer-facts", "1")
	for _, kv := range [][2]string{
		{"hostname", m.name}, {"uname", "6.12 x86_64"}, {"time", time.Now().UTC().Format(time.RFC3339)}, {"user", "root"}, {"uid", "0"},
		{"boot_id", m.bootID()}, {"os", "nixos"}, {"systemd", "systemd 257"}, {"current-system", m.readlink("/run/current-system")},
		{"booted-system", m.readlink("/run/booted-system")}, {"profile", m.readlink(agent.SystemProfile)}, {"nix", "nix (Nix) 2.24.0"}, {"launcher", "1"},
	} {
		say(kv[0], kv[1])
	}
	m.eachGeneration(func(profile string, n int, top string) {
		if profile == "system" {
			say("generation", fmt.Sprintf("system-%d-link", n))
			say("target", top)
		}
	})
	say("boot", "systemd-boot")
	files := []string{"loader.conf"}
	for name := range readDir(m.dir + "/boot/loader/entries") {
		files = append(files, "entries/"+name)
	}
	slices.Sort(files)
	for _, name := range files {
		for line := range strings.Lines(m.read("/boot/loader/" + name)) {
			say("bootline", name+":"+strings.TrimSuffix(line, "\n"))
		}
	}
	say("unknown", "switch_locked")
	say("end", "1")
	return b.String()
}

// Start runs the agent as a process of the host.
func (c *conn) Start(_ context.Context, cmd host.Command) (host.Process, error) {
	if err := c.gone(); err != nil {
		return nil, err
	}
	m := c.l.m
	if len(cmd.Args) < 4 || cmd.Args[0] != agent.LauncherPath || cmd.Args[3] != "serve" {
		m.w.fail("%s: unexpected process %q", m.name, cmd.Args)
	}
	s := &session{c: c, ops: map[uint64]string{}}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	s.in, s.out = inW, outR
	s.p = m.spawn("serve", func(ctx context.Context, p *process) {
		_ = agent.Serve(ctx, inR, reply{s, outW}, p.options())
		outW.Close()
	})
	go func() {
		select {
		case <-c.lost:
		case <-s.p.killed:
		case <-s.p.done:
		}
		s.out.CloseWithError(io.EOF)
		outW.Close()
		if c.isLost() && c.lag > 0 {
			select {
			case <-time.After(c.lag):
			case <-s.p.killed:
			case <-s.p.done:
			}
		}
		inW.Close()
		inR.Close()
	}()
	return s, nil
}

// session is the agent's process as the controller has it.
type session struct {
	c   *conn
	p   *process
	in  *io.PipeWriter
	out *io.PipeReader

	mu  sync.Mutex
	ops map[uint64]string // of requests under way
}

// Write sends one request.
func (s *session) Write(b []byte) (int, error) {
	if err := s.c.gone(); err != nil {
		return 0, err
	}
	var req agent.Request
	check(json.Unmarshal(b, &req))
	s.mu.Lock()
	s.ops[req.ID] = req.Op
	s.mu.Unlock()
	s.c.point("send " + req.Op)
	if err := s.c.gone(); err != nil {
		return 0, err
	}
	return s.in.Write(b)
}

// reply is the agent's standard output.
type reply struct {
	s   *session
	out *io.PipeWriter
}

func (r reply) Write(b []byte) (int, error) {
	var res agent.Response
	check(json.Unmarshal(b, &res))
	r.s.mu.Lock()
	op := r.s.ops[res.ID]
	delete(r.s.ops, res.ID)
	r.s.mu.Unlock()
	r.s.c.point("reply " + op)
	if err := r.s.c.gone(); err != nil {
		return 0, err
	}
	if err := r.s.p.alive(); err != nil {
		return 0, err
	}
	return r.out.Write(b)
}

func (c *conn) point(label string) {
	if !c.isLost() && c.c.alive() == nil {
		c.l.m.w.point(c.l.m.name+" link", label, nil)
	}
}

func (s *session) Read(b []byte) (int, error) { return s.out.Read(b) }
func (s *session) CloseWrite() error          { return s.in.Close() }

func (s *session) Wait() (host.Result, error) {
	select {
	case <-s.p.done:
	case <-s.p.killed:
		return host.Result{Code: 137, Signal: "KILL"}, nil
	case <-s.c.lost:
	}
	return host.Result{}, s.c.gone()
}

func (s *session) Stop(context.Context) error {
	s.in.Close()
	return nil
}

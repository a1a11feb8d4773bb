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
	if m.behave.module {
		say("module", "1")
	}
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
	s := &session{c: c, ops: map[uint64]agent.Request{}, there: newQueue(), back: newQueue()}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	s.out = outR
	s.p = m.spawn("serve", func(ctx context.Context, p *process) {
		p.by = c.c
		_ = agent.Serve(ctx, inR, s.back, p.options())
		s.back.close()
	})
	go s.there.pump(func(line []byte) error { return s.send(line, inW) })
	go s.back.pump(func(line []byte) error { return s.reply(line, outW) })
	go func() {
		select {
		case <-c.lost:
		case <-s.p.killed:
		case <-s.p.done:
			<-s.back.done // what was said before the end arrives
		}
		outW.CloseWithError(io.EOF)
		if c.isLost() && c.lag > 0 {
			select {
			case <-time.After(c.lag):
			case <-s.p.killed:
			case <-s.p.done:
			}
		}
		s.there.close()
		s.back.close()
		inW.Close()
		inR.Close()
		outR.Close()
	}()
	return s, nil
}

// session is the agent's process as the controller has it. Lines wait in
// queues: whoever writes one holds locks, and must not wait for this world's time.
type session struct {
	c           *conn
	p           *process
	out         *io.PipeReader
	there, back *queue

	mu  sync.Mutex
	ops map[uint64]agent.Request // under way
}

// Write sends one request.
func (s *session) Write(b []byte) (int, error) {
	if err := s.c.gone(); err != nil {
		return 0, err
	}
	return s.there.Write(b)
}

func (s *session) send(line []byte, in io.Writer) error {
	var req agent.Request
	check(json.Unmarshal(line, &req))
	s.mu.Lock()
	s.ops[req.ID] = req
	s.mu.Unlock()
	s.c.point("send " + req.Op)
	if req.Op != agent.OpHello { // its caller has a mutex
		s.c.c.hold()
	}
	if err := s.c.gone(); err != nil {
		return err
	}
	_, err := in.Write(line)
	return err
}

func (s *session) reply(line []byte, out io.Writer) error {
	var res agent.Response
	check(json.Unmarshal(line, &res))
	s.mu.Lock()
	req := s.ops[res.ID]
	op := req.Op
	delete(s.ops, res.ID)
	s.mu.Unlock()
	if req.Records != nil && res.Error == nil {
		s.c.l.m.told(*req.Records)
	}
	if op == agent.OpSnapshot && res.Error == nil {
		s.c.l.m.shot = true
	}
	if s.p.alive() == nil {
		s.c.point("reply " + op)
	}
	if op != agent.OpHello {
		s.c.c.hold()
	}
	if err := s.c.gone(); err != nil {
		return err
	}
	if err := s.p.alive(); err != nil {
		return err
	}
	_, err := out.Write(line)
	return err
}

// queue is lines on their way.
type queue struct {
	mu     sync.Mutex
	lines  [][]byte
	more   chan struct{}
	closed bool
	done   chan struct{} // closed when nothing comes any more
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1), done: make(chan struct{})} }

func (q *queue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, io.ErrClosedPipe
	}
	q.lines = append(q.lines, slices.Clone(b))
	q.wake()
	return len(b), nil
}

func (q *queue) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

func (q *queue) next() (line []byte, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == 0 {
		return nil, q.closed
	}
	line, q.lines = q.lines[0], q.lines[1:]
	return line, false
}

// pump delivers line by line, until one cannot be.
func (q *queue) pump(deliver func([]byte) error) {
	defer close(q.done)
	for {
		line, closed := q.next()
		switch {
		case closed:
			return
		case line == nil:
			<-q.more
		case deliver(line) != nil:
			q.close()
			return
		}
	}
}

func (c *conn) point(label string) {
	if !c.isLost() && c.c.alive() == nil {
		c.l.m.w.point(c.l.m.name+" link", label, nil)
	}
}

func (s *session) Read(b []byte) (int, error) { return s.out.Read(b) }
func (s *session) CloseWrite() error          { s.c.lose(0); return nil }

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
	return s.CloseWrite()
}

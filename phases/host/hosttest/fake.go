package hosttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/hbohlen/deployer/phases/host"
)

// Fake is a host whose answers are written in the test. Hosts made by Fresh
// share its script and its record.
type Fake struct {
	*world
	lost chan struct{}
	gone sync.Once
}

// world is what outlives a connection.
type world struct {
	t    testing.TB
	name string

	mu    sync.Mutex
	rules []*Rule
	calls []host.Command
	dials int
	down  error // what Fresh returns; nil: it connects
	user  string
}

var _ host.Host = (*Fake)(nil)

// New makes a host that knows no commands, logged in as root.
func New(t testing.TB, name string) *Fake {
	w := &world{t: t, name: name, user: "root"}
	t.Cleanup(w.finished)
	return w.connect()
}

func (w *world) connect() *Fake {
	w.dials++
	return &Fake{world: w, lost: make(chan struct{})}
}

// LogInAs changes the login user.
func (w *world) LogInAs(user string) { w.user = user }

// Calls is every command so far, in order.
func (w *world) Calls() []host.Command {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]host.Command(nil), w.calls...)
}

// Lines is every command so far as one line each, for comparing.
func (w *world) Lines() []string {
	var out []string
	for _, c := range w.Calls() {
		line := strings.Join(c.Args, " ")
		if c.Privileged {
			line = "sudo " + line
		}
		out = append(out, line)
	}
	return out
}

// Dials counts the connections, the first included.
func (w *world) Dials() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// Unreachable makes Fresh fail; nil makes it connect again.
func (w *world) Unreachable(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = err
}

// Lose cuts this connection: what runs and what comes gets Kind Lost.
func (f *Fake) Lose() { f.gone.Do(func() { close(f.lost) }) }

func (f *Fake) Name() string          { return f.name }
func (f *Fake) Login() (string, bool) { return f.user, f.user == "root" }
func (f *Fake) Lost() <-chan struct{} { return f.lost }
func (f *Fake) Close() error          { f.Lose(); return nil }

// Fresh is another connection to the same world.
func (f *Fake) Fresh(ctx context.Context) (host.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down); err != nil {
		return nil, err
	}
	return f.connect(), nil
}

func (f *Fake) check(ctx context.Context) error {
	select {
	case <-f.lost:
		return &host.Error{Kind: host.Lost, Host: f.name, Err: errors.New("the connection is gone")}
	default:
		return ctx.Err()
	}
}

// Run answers by the first rule that matches.
func (f *Fake) Run(ctx context.Context, cmd host.Command) (host.Result, error) {
	in := cmd.Stdin
	if in == nil {
		in = strings.NewReader("")
	}
	var out bytes.Buffer
	res, err := f.run(ctx, cmd, in, &out)
	if res.Stdout == nil {
		res.Stdout = out.Bytes()
	}
	return res, err
}

func (f *Fake) run(ctx context.Context, cmd host.Command, in io.Reader, out io.Writer) (res host.Result, err error) {
	if err := f.check(ctx); err != nil {
		return host.Result{Code: -1}, err
	}
	answer, err := f.pick(cmd)
	if err != nil {
		return host.Result{Code: -1}, err
	}
	res = answer(cmd, in, out)
	if err := f.check(context.Background()); err != nil {
		return host.Result{Code: -1}, err
	}
	return res, nil
}

// Start answers by a rule too, with both streams open while it works.
func (f *Fake) Start(ctx context.Context, cmd host.Command) (host.Process, error) {
	if err := f.check(ctx); err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{})}
	var in *io.PipeReader
	var out *io.PipeWriter
	in, p.in = io.Pipe()
	p.out, out = io.Pipe()
	go func() {
		defer close(p.done)
		p.res, p.err = f.run(context.Background(), cmd, in, out)
	}()
	go func() { // a lost connection ends both streams
		select {
		case <-p.done:
		case <-ctx.Done():
		case <-f.lost:
		}
		in.CloseWithError(io.ErrClosedPipe)
		out.Close()
	}()
	return p, nil
}

type process struct {
	in   *io.PipeWriter
	out  *io.PipeReader
	done chan struct{}
	res  host.Result
	err  error
}

func (p *process) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *process) CloseWrite() error           { return p.in.Close() }

func (p *process) Wait() (host.Result, error) {
	<-p.done
	return p.res, p.err
}

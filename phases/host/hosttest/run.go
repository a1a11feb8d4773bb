package hosttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// Run answers by the first rule that matches.
func (f *Fake) Run(ctx context.Context, cmd host.Command) (host.Result, error) {
	if err := f.check(ctx); err != nil {
		return host.Result{Code: -1}, err
	}
	input := ""
	if cmd.Stdin != nil {
		b, err := io.ReadAll(cmd.Stdin)
		if err != nil {
			return host.Result{Code: -1}, err
		}
		input = string(b)
	}
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	res, err := f.answer(ctx, cmd, strings.NewReader(input), writer(cmd.Stdout, &out))
	if cmd.Stdout == nil && res.Stdout == nil {
		res.Stdout = out.Bytes()
	}
	return res, err
}

func writer(w io.Writer, otherwise io.Writer) io.Writer {
	if w != nil {
		return w
	}
	return otherwise
}

func (f *Fake) answer(ctx context.Context, cmd host.Command, in io.Reader, out io.Writer) (host.Result, error) {
	rule := f.pick(cmd)
	if rule == nil {
		f.t.Errorf("%s: unexpected command: %q", f.name, cmd.Args)
		return host.Result{Code: -1}, f.error(host.Unknown, errors.New("unexpected command: "+strings.Join(cmd.Args, " ")))
	}
	ctx, cancel := timeout(ctx, cmd)
	defer cancel()
	return rule.do(ctx, f, cmd, in, out)
}

func (w *world) pick(cmd host.Command) *Rule {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, cmd)
	for _, r := range w.rules {
		if r.left != 0 && r.match(cmd) {
			if r.left > 0 {
				r.left--
			}
			return r
		}
	}
	return nil
}

// finished reports rules that should have been used.
func (w *world) finished() {
	for i, r := range w.rules {
		if r.must && r.left > 0 {
			w.t.Errorf("%s: rule %d (%s) was to be used %d more times", w.name, i+1, r.name, r.left)
		}
	}
}

// Start answers by a rule too, with both streams open while it works.
func (f *Fake) Start(ctx context.Context, cmd host.Command) (host.Process, error) {
	if err := f.check(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cancel: cancel, done: make(chan struct{})}
	var in *io.PipeReader
	var out *io.PipeWriter
	in, p.in = io.Pipe()
	p.out, out = io.Pipe()
	go func() {
		p.res, p.err = f.answer(ctx, cmd, in, out)
		if lost := f.check(context.Background()); lost != nil && p.err == nil {
			p.res, p.err = host.Result{Code: -1}, lost
		}
		close(p.done)
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
	in     *io.PipeWriter
	out    *io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
	res    host.Result
	err    error
}

func (p *process) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *process) CloseWrite() error           { return p.in.Close() }

func (p *process) Wait() (host.Result, error) {
	<-p.done
	return p.res, p.err
}

func (p *process) Stop(ctx context.Context) error {
	p.in.Close()
	p.cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

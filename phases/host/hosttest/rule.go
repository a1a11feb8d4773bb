package hosttest

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

// Matcher picks commands.
type Matcher func(host.Command) bool

// Args matches a command with exactly these arguments.
func Args(args ...string) Matcher {
	return func(c host.Command) bool { return slices.Equal(c.Args, args) }
}

// Prefix matches a command that begins with these arguments.
func Prefix(args ...string) Matcher {
	return func(c host.Command) bool {
		return len(c.Args) >= len(args) && slices.Equal(c.Args[:len(args)], args)
	}
}

// Glob matches a command's arguments, joined by blanks, against a pattern of
// path.Match in which * matches slashes too.
func Glob(pattern string) Matcher {
	flat := strings.NewReplacer("/", "\x01").Replace
	return func(c host.Command) bool {
		ok, err := path.Match(flat(pattern), flat(strings.Join(c.Args, " ")))
		return ok && err == nil
	}
}

// Rule is what a Fake does with the commands that a Matcher picks. Rules are
// asked in the order of their making; one that is used up is passed over.
type Rule struct {
	match Matcher
	do    func(ctx context.Context, f *Fake, cmd host.Command, stdin io.Reader, stdout io.Writer) (host.Result, error)
	left  int // how often still; -1: always
	must  bool
	name  string
}

// On adds a rule. Until told otherwise it answers with success, always.
func (w *world) On(m Matcher) *Rule {
	r := &Rule{match: m, left: -1}
	r.Reply(0, "", "")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = append(w.rules, r)
	return r
}

// OnArgs is On with Args, and a name for the report if it is never used.
func (w *world) OnArgs(args ...string) *Rule {
	r := w.On(Args(args...))
	r.name = strings.Join(args, " ")
	return r
}

// Times limits a rule, and makes the test fail if it is used less often.
func (r *Rule) Times(n int) *Rule { r.left, r.must = n, true; return r }

// Once is Times(1).
func (r *Rule) Once() *Rule { return r.Times(1) }

// Reply answers with an exit code and output.
func (r *Rule) Reply(code int, stdout, stderr string) *Rule {
	r.do = func(_ context.Context, _ *Fake, c host.Command, _ io.Reader, out io.Writer) (host.Result, error) {
		io.WriteString(out, stdout)
		if c.Stderr != nil {
			io.WriteString(c.Stderr, stderr)
			return host.Result{Code: code}, nil
		}
		return host.Result{Code: code, Stderr: []byte(stderr)}, nil
	}
	return r
}

// Out answers with success and this output.
func (r *Rule) Out(stdout string) *Rule { return r.Reply(0, stdout, "") }

// Error answers with an error instead of a result.
func (r *Rule) Error(err error) *Rule {
	r.do = func(context.Context, *Fake, host.Command, io.Reader, io.Writer) (host.Result, error) {
		return host.Result{Code: -1}, err
	}
	return r
}

// Lose cuts the connection while the command runs.
func (r *Rule) Lose() *Rule {
	r.do = func(ctx context.Context, f *Fake, _ host.Command, _ io.Reader, _ io.Writer) (host.Result, error) {
		f.Lose()
		return host.Result{Code: -1}, f.check(ctx)
	}
	return r
}

// Hang answers only when the context ends or the connection is lost.
func (r *Rule) Hang() *Rule {
	r.do = func(ctx context.Context, f *Fake, _ host.Command, _ io.Reader, _ io.Writer) (host.Result, error) {
		select {
		case <-ctx.Done():
			return host.Result{Code: 143, Signal: "TERM"}, context.Cause(ctx)
		case <-f.lost:
			return host.Result{Code: -1}, f.check(ctx)
		}
	}
	return r
}

// Do answers with a function; it sees the command's input and writes its output.
func (r *Rule) Do(do func(cmd host.Command, stdin io.Reader, stdout io.Writer) host.Result) *Rule {
	r.do = func(_ context.Context, _ *Fake, c host.Command, in io.Reader, out io.Writer) (host.Result, error) {
		return do(c, in, out), nil
	}
	return r
}

// timeout is a command's own limit on top of the caller's context.
func timeout(ctx context.Context, cmd host.Command) (context.Context, context.CancelFunc) {
	if cmd.Timeout > 0 {
		return context.WithTimeout(ctx, cmd.Timeout)
	}
	return context.WithDeadline(ctx, time.Now().Add(24*time.Hour))
}

package hosttest

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// Matcher picks commands.
type Matcher func(host.Command) bool

// Prefix matches a command that begins with these arguments.
func Prefix(args ...string) Matcher {
	return func(c host.Command) bool {
		return len(c.Args) >= len(args) && slices.Equal(c.Args[:len(args)], args)
	}
}

// Answer sees a command's input and writes its output.
type Answer func(cmd host.Command, stdin io.Reader, stdout io.Writer) host.Result

// Rule is what a Fake does with the commands that a Matcher picks. Rules are
// asked in the order of their making; one that is used up is passed over.
type Rule struct {
	match  Matcher
	answer Answer
	err    error
	left   int // how often still; -1: always
	name   string
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

// OnArgs is On for exactly these arguments, and a name for the report if it is never used.
func (w *world) OnArgs(args ...string) *Rule {
	r := w.On(func(c host.Command) bool { return slices.Equal(c.Args, args) })
	r.name = strings.Join(args, " ")
	return r
}

// Once limits a rule to one use, and makes the test fail if there is none.
func (r *Rule) Once() *Rule { r.left = 1; return r }

// Reply answers with an exit code and output.
func (r *Rule) Reply(code int, stdout, stderr string) *Rule {
	return r.Do(func(c host.Command, _ io.Reader, out io.Writer) host.Result {
		io.WriteString(out, stdout)
		if c.Stderr != nil {
			io.WriteString(c.Stderr, stderr)
			return host.Result{Code: code}
		}
		return host.Result{Code: code, Stderr: []byte(stderr)}
	})
}

// Out answers with success and this output.
func (r *Rule) Out(stdout string) *Rule { return r.Reply(0, stdout, "") }

// Error answers with an error instead of a result.
func (r *Rule) Error(err error) *Rule { r.err = err; return r }

// Do answers with a function.
func (r *Rule) Do(a Answer) *Rule { r.answer = a; return r }

func (w *world) pick(cmd host.Command) (Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, cmd)
	for _, r := range w.rules {
		if r.left != 0 && r.match(cmd) {
			r.left = max(r.left-1, min(r.left, 0))
			return r.answer, r.err
		}
	}
	w.t.Errorf("%s: unexpected command: %q", w.name, cmd.Args)
	return nil, &host.Error{Kind: host.Unknown, Host: w.name, Err: errors.New("unexpected command: " + strings.Join(cmd.Args, " "))}
}

// finished reports rules that should have been used.
func (w *world) finished() {
	for i, r := range w.rules {
		if r.left > 0 {
			w.t.Errorf("%s: rule %d (%s) was never used", w.name, i+1, r.name)
		}
	}
}

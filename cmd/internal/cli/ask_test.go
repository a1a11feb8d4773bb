package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// newAsker is one that nobody sits at: standard input of a test is no terminal.
func newAsker(args ...string) (*asker, *bytes.Buffer) {
	var errs bytes.Buffer
	return &asker{app: &app{args: args, Streams: &view.Streams{Out: io.Discard, Err: &errs, Width: 80}}}, &errs
}

// TestNobodyToAsk: exit 10, and the whole command with the flag to add.
func TestNobodyToAsk(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	defer func(in *os.File) { os.Stdin = in }(os.Stdin)
	os.Stdin = null

	a, _ := newAsker("run", "production", "--reason", "it's time")
	if err := a.confirm(t.Context(), "Run it?", true, "--yes"); err != nil {
		t.Errorf("--yes: %v", err)
	}
	f := phases.AsFailure(a.confirm(t.Context(), "Run it?", false, "--yes"))
	want := []string{`deployer run production --reason "it's time" --yes`}
	if f.Exit != phases.ExitUsage || f.Safe == "" || cmp.Diff(want, f.Hint) != "" {
		t.Errorf("got %+v", f)
	}
	a.run = "r1"
	_, err = a.Sign(t.Context(), "ops team", "Team notified")
	f = phases.AsFailure(err)
	want = []string{`deployer resume r1 --sign 'ops team'`}
	if f.Exit != phases.ExitWaiting || cmp.Diff(want, f.Hint) != "" || !strings.Contains(f.Error(), `"Team notified"`) {
		t.Errorf("got %+v", f)
	}
}

func TestNobodyIsAskedWith(t *testing.T) {
	for name, set := range map[string]func(*asker){
		"--no-input": func(a *asker) { a.noInput = true },
		"--json":     func(a *asker) { a.json = true },
		"CI":         func(*asker) { t.Setenv("CI", "1") },
	} {
		a, _ := newAsker()
		if set(a); a.interactive() {
			t.Errorf("%s: somebody is", name)
		}
	}
}

func TestSignByFlag(t *testing.T) {
	t.Setenv("SUDO_USER", "")
	t.Setenv("USER", "anna")
	a, _ := newAsker()
	a.signs = []string{"lead=Bert", "ops", "ops=Carl"}
	for who, want := range map[string]string{"lead": "Bert (--sign)", "ops": owner() + " (--sign)"} {
		if got, err := a.Sign(t.Context(), who, "x"); got != want || err != nil {
			t.Errorf("%s: %q, %v", who, got, err)
		}
	}
}

// TestAnswers: two of them typed ahead reach two questions.
func TestAnswers(t *testing.T) {
	a, errs := newAsker()
	a.in = bufio.NewReader(strings.NewReader(" first \nsecond\n"))
	for _, want := range []string{"first", "second"} {
		if got, err := a.line(t.Context(), "Well? "); got != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := a.line(t.Context(), "And? "); phases.AsFailure(err).Exit != phases.ExitUsage {
		t.Errorf("at the end of input: %v", err)
	}
	if errs.String() != "Well? Well? And? " {
		t.Errorf("asked %q", errs)
	}
}

// TestAQuestionEndsWithItsContext: a Ctrl-C at a prompt is heard.
func TestAQuestionEndsWithItsContext(t *testing.T) {
	a, _ := newAsker()
	r, w := io.Pipe()
	defer w.Close()
	a.in = bufio.NewReader(r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.line(ctx, "Run it? "); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestVars(t *testing.T) {
	got, err := vars([]string{"a=1", "b=", "c=x=y", "a=2"})
	if d := cmp.Diff(map[string]string{"a": "2", "b": "", "c": "x=y"}, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for _, bad := range []string{"", "a", "=1"} {
		if _, err := vars([]string{bad}); phases.AsFailure(err).Exit != phases.ExitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestExitPrintsOnce: every kind of error, its code, and what goes to stderr.
func TestExitPrintsOnce(t *testing.T) {
	for _, c := range []struct {
		err  error
		json bool
		exit int
		want string
	}{
		{nil, false, 0, ""},
		{exitCode(31), false, 31, ""},
		{errors.New("disk on fire"), false, 1, "error: disk on fire\n"},
		{usage(errors.New("no such thing"), "deployer history"), false, 10, "error: no such thing\n next: deployer history\n"},
		{errors.New("unknown command \"x\" for \"deployer\"\n\nDid you mean this?\n\trun\n\tplan\n"), false, 10,
			"error: unknown command \"x\" for \"deployer\"\n next: deployer run\n       deployer plan\n       deployer --help\n"},
		{usage(errors.New("no"), "try"), true, 10, `{"error":"no","exit":10,"hint":["try"],"type":"exit_error"}` + "\nerror: no\n next: try\n"},
	} {
		var out, errs bytes.Buffer
		a := &app{Streams: &view.Streams{Out: &out, Err: &errs, Width: 80}}
		a.json = c.json
		if got := a.exit(c.err); got != c.exit || errs.String() != c.want || out.Len() > 0 {
			t.Errorf("%v: exit %d, not %d; prints %q and %q", c.err, got, c.exit, &errs, &out)
		}
	}
}

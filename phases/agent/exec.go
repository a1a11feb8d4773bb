package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tailSize    = 256 << 10
	execDefault = time.Minute
	execGrace   = 2 * time.Second // between the polite signal and the other
	askTimeout  = 20 * time.Second
)

// program is a child of the agent.
type program struct {
	args, env      []string
	stdout, stderr io.Writer
	grace          time.Duration // 0: execGrace
}

// ending is how a program ended: 128+n, and the signal's name without SIG, when
// a signal ended it. over is why it was made to end, nil if it was not.
type ending struct {
	code   int
	signal string
	over   error
}

// run runs a program to its end, with the agent's PATH and in a process group of
// its own, which ends when ctx does: politely at first.
func run(ctx context.Context, path string, p program) (ending, error) {
	c := exec.CommandContext(ctx, find(p.args[0], path), p.args[1:]...)
	c.Args[0] = p.args[0]
	c.Env = append([]string{"PATH=" + path, "HOME=/root", "USER=root", "LANG=C.UTF-8"}, p.env...)
	if archive := os.Getenv("LOCALE_ARCHIVE"); archive != "" {
		c.Env = append(c.Env, "LOCALE_ARCHIVE="+archive)
	}
	c.Dir, c.Stdout, c.Stderr = "/", p.stdout, p.stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGTERM) }
	c.WaitDelay = cmp.Or(p.grace, execGrace) // then the leader is killed and the pipes, which a grandchild may keep open, are left
	err := c.Run()
	if cause := context.Cause(ctx); cause != nil && c.ProcessState == nil { // ended before it began
		return ending{128 + int(unix.SIGTERM), "TERM", cause}, nil
	}
	if c.ProcessState == nil {
		return ending{code: 127}, fmt.Errorf("cannot run %s: %w", p.args[0], err)
	}
	e := ending{code: c.ProcessState.ExitCode(), over: context.Cause(ctx)}
	if e.over != nil { // what ignored the polite signal, or outlived its leader
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
	}
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.code, e.signal = 128+int(ws.Signal()), strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
	}
	return e, nil
}

// find looks a program up in path; one with a slash is itself.
func find(name, path string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for dir := range strings.SplitSeq(path, ":") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return name
}

// output is what a program prints; an error has what it said of its failure.
func output(ctx context.Context, path string, args ...string) (string, error) {
	var out bytes.Buffer
	var said tail
	e, err := run(ctx, path, program{args: args, stdout: &out, stderr: &said})
	switch {
	case err != nil:
		return "", err
	case e.over != nil:
		return out.String(), e.over
	case e.code != 0:
		text := cmp.Or(strings.TrimSpace(string(said.cut())), fmt.Sprintf("exit %d", e.code))
		return out.String(), errors.New(args[0] + ": " + clean(text))
	}
	return out.String(), nil
}

// ask is output for a question, which has an answer soon or none.
func ask(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return output(ctx, path, args...)
}

// exec runs a short command as a child: it ends at its timeout, and with the connection.
func (a *agent) exec(ctx context.Context, args ExecArgs) (ExecResult, error) {
	if len(args.Args) == 0 {
		return ExecResult{}, invalid("cannot run a command without a name")
	}
	if args.Timeout <= 0 {
		args.Timeout = execDefault
	}
	ctx, cancel := context.WithTimeout(ctx, args.Timeout)
	defer cancel()
	var stdout, stderr tail
	e, err := run(ctx, a.Path, program{args: args.Args, env: args.Env, stdout: &stdout, stderr: &stderr})
	return ExecResult{Code: e.code, Signal: e.signal, TimedOut: errors.Is(e.over, context.DeadlineExceeded),
		Stdout: stdout.cut(), Stderr: stderr.cut()}, err
}

// tail keeps the last part of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*tailSize {
		t.data = append(t.data[:0], t.data[len(t.data)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) cut() []byte { return t.data[max(0, len(t.data)-tailSize):] }

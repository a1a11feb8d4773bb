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

// Program is a child of the agent.
type Program struct {
	Args, Env      []string
	Stdin          *os.File // nil: empty
	Stdout, Stderr io.Writer
	Grace          time.Duration // 0: execGrace
}

// Ending is how a program ended: 128+n, and the signal's name without SIG, when
// a signal ended it. Over is why it was made to end, nil if it was not.
type Ending struct {
	Code   int
	Signal string
	Over   error
}

// run runs a program to its end, by the kernel or by who stands in for it.
func (a *agent) run(ctx context.Context, p Program) (Ending, error) {
	if a.Exec != nil {
		return a.Exec(ctx, a.Path, p)
	}
	return run(ctx, a.Path, p)
}

// run runs a program to its end, with the agent's PATH and in a process group of
// its own, which ends when ctx does: politely at first.
func run(ctx context.Context, path string, p Program) (Ending, error) {
	c := exec.CommandContext(ctx, find(p.Args[0], path), p.Args[1:]...)
	c.Args[0] = p.Args[0]
	c.Env = append([]string{"PATH=" + path, "HOME=/root", "USER=root", "LANG=C.UTF-8"}, p.Env...)
	if archive := os.Getenv("LOCALE_ARCHIVE"); archive != "" {
		c.Env = append(c.Env, "LOCALE_ARCHIVE="+archive)
	}
	c.Dir, c.Stdout, c.Stderr = "/", p.Stdout, p.Stderr
	if p.Stdin != nil {
		c.Stdin = p.Stdin
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGTERM) }
	c.WaitDelay = cmp.Or(p.Grace, execGrace) // then the leader is killed and the pipes, which a grandchild may keep open, are left
	err := c.Run()
	if cause := context.Cause(ctx); cause != nil && c.ProcessState == nil { // ended before it began
		return Ending{128 + int(unix.SIGTERM), "TERM", cause}, nil
	}
	if c.ProcessState == nil {
		return Ending{Code: 127}, fmt.Errorf("cannot run %s: %w", p.Args[0], err)
	}
	e := Ending{Code: c.ProcessState.ExitCode(), Over: context.Cause(ctx)}
	if e.Over != nil { // what ignored the polite signal, or outlived its leader
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
	}
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Code, e.Signal = 128+int(ws.Signal()), strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
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
	return collect(args, func(p Program) (Ending, error) { return run(ctx, path, p) })
}

func collect(args []string, run func(Program) (Ending, error)) (string, error) {
	var out bytes.Buffer
	var said tail
	e, err := run(Program{Args: args, Stdout: &out, Stderr: &said})
	switch {
	case err != nil:
		return "", err
	case e.Over != nil:
		return out.String(), e.Over
	case e.Code != 0:
		text := cmp.Or(strings.TrimSpace(string(said.cut())), fmt.Sprintf("exit %d", e.Code))
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

func (a *agent) ask(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return collect(args, func(p Program) (Ending, error) { return a.run(ctx, p) })
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
	e, err := a.run(ctx, Program{Args: args.Args, Env: args.Env, Stdout: &stdout, Stderr: &stderr})
	return ExecResult{Code: e.Code, Signal: e.Signal, TimedOut: errors.Is(e.Over, context.DeadlineExceeded),
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

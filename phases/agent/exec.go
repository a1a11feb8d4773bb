package agent

import (
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
)

// exec runs a short command as a child, in a process group of its own: at its
// timeout, and when the connection ends, the group ends.
func (a *agent) exec(ctx context.Context, args ExecArgs) (ExecResult, error) {
	if len(args.Args) == 0 {
		return ExecResult{}, &Error{Code: "invalid", Message: "cannot run a command without a name"}
	}
	if args.Timeout <= 0 {
		args.Timeout = execDefault
	}
	ctx, cancel := context.WithTimeout(ctx, args.Timeout)
	defer cancel()
	var stdout, stderr tail
	c := a.command(ctx, args.Args, args.Env)
	c.Stdin = strings.NewReader(string(args.Stdin))
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	res := ExecResult{Stdout: stdout.cut(), Stderr: stderr.cut(), TimedOut: errors.Is(ctx.Err(), context.DeadlineExceeded)}
	if c.ProcessState == nil {
		return res, fmt.Errorf("cannot run %s: %w", args.Args[0], err)
	}
	if ctx.Err() != nil { // what ignored the polite signal, or outlived its leader
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
	}
	res.Code, res.Signal = status(c.ProcessState)
	return res, nil
}

// command prepares a child with the agent's PATH and its own process group.
func (a *agent) command(ctx context.Context, args, env []string) *exec.Cmd {
	c := exec.CommandContext(ctx, find(args[0], a.Path), args[1:]...)
	c.Args[0] = args[0]
	c.Env = append([]string{"PATH=" + a.Path, "HOME=/root", "USER=root", "LANG=C.UTF-8"}, env...)
	if archive := os.Getenv("LOCALE_ARCHIVE"); archive != "" {
		c.Env = append(c.Env, "LOCALE_ARCHIVE="+archive)
	}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGTERM) }
	c.WaitDelay = execGrace // then the leader is killed and the pipes, which a grandchild may keep open, are left
	return c
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

// status is how a process ended: 128+n and the signal's name without SIG when
// a signal ended it.
func status(ps *os.ProcessState) (int, string) {
	ws, ok := ps.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal()), strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
	}
	return ps.ExitCode(), ""
}

// tail keeps the last part of what is written to it.
type tail struct {
	data []byte
	also io.Writer // nil, or where everything goes too
}

func (t *tail) Write(p []byte) (int, error) {
	if t.also != nil {
		_, _ = t.also.Write(p)
	}
	t.data = append(t.data, p...)
	if len(t.data) > 2*tailSize {
		t.data = append(t.data[:0], t.data[len(t.data)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) cut() []byte { return t.data[max(0, len(t.data)-tailSize):] }

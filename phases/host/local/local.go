// Package local reaches this machine, through the same shell lines as a remote
// one (see the internal package shell): what holds for a host over SSH holds
// for it too. Each command gets a session of its own, so a Ctrl-C at the
// terminal does not reach it; ending it is deployer's decision.
package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/internal/shell"
)

// Host is this machine.
type Host struct {
	*shell.Machine
	lost  chan struct{}
	close sync.Once
}

var _ host.Host = (*Host)(nil)

// New reaches this machine under a name.
func New(ctx context.Context, name string) (*Host, error) {
	h := &Host{lost: make(chan struct{})}
	h.Machine = shell.New(name, "", h)
	if err := h.LogIn(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Fresh is another New: there is no connection that could be old.
func (h *Host) Fresh(ctx context.Context) (host.Host, error) { return New(ctx, h.Name()) }

// Lost is closed by Close alone.
func (h *Host) Lost() <-chan struct{} { return h.lost }

// Close makes the host unusable, as it would a remote one.
func (h *Host) Close() error {
	h.close.Do(func() { close(h.lost) })
	return nil
}

// Open starts a line.
func (h *Host) Open(line string) (*shell.Session, error) {
	select {
	case <-h.lost:
		return nil, h.Fail(host.Lost, errors.New("it was closed"))
	default:
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s, err := start(cmd)
	if err != nil {
		return nil, h.Fail(host.Unknown, err)
	}
	return s, nil
}

// start makes the pipes itself: those of os/exec are closed by Wait, even if
// not all was read.
func start(cmd *exec.Cmd) (*shell.Session, error) {
	var files [6]*os.File
	for i := 0; i < len(files); i += 2 {
		var err error
		if files[i], files[i+1], err = os.Pipe(); err != nil {
			closeAll(files[:]...)
			return nil, err
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
	err := cmd.Start()
	closeAll(files[0], files[3], files[5])
	if err != nil {
		closeAll(files[1], files[2], files[4])
		return nil, err
	}
	return &shell.Session{
		Stdin: files[1], Stdout: output{files[2]}, Stderr: files[4],
		Wait:  func() (int, string, error) { return wait(cmd) },
		Close: func() error { closeAll(files[1], files[4]); return nil },
	}, nil
}

// output is closed by reading to its end.
type output struct{ file *os.File }

func (o output) Read(b []byte) (int, error) {
	n, err := o.file.Read(b)
	if err != nil {
		o.file.Close()
	}
	return n, err
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func wait(cmd *exec.Cmd) (int, string, error) {
	err := cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return -1, "", err
	case status.Signaled():
		name := strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")
		return 128 + int(status.Signal()), name, nil
	}
	return status.ExitStatus(), "", nil
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runJob is the wrapper inside a transient unit: it records the start before
// the command is executed and the end after, both durable, so that a receipt
// tells the truth whatever happens in between.
func (a *agent) runJob(ctx context.Context, unit string) (int, error) {
	s, t, err := a.ticket(unit)
	if err != nil {
		return 1, err
	}
	stopped := make(chan os.Signal, 1) // from before the start is recorded: who reads of it may end it
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stopped)
	return a.recorded(s, t, func(r *Receipt) {
		if t.Operation != nil {
			a.runOperation(ctx, t, r, stopped)
		} else {
			a.runCommand(ctx, t, r, stopped)
		}
	})
}

// recorded runs work between the two writes of its receipt. Exactly one
// process ever gets past the first: creating it is exclusive.
func (a *agent) recorded(s *store, t Job, work func(*Receipt)) (int, error) {
	alive, err := s.flock(jobFile(t.Unit, "alive"))
	if err != nil {
		return 1, err
	}
	defer alive.Close()
	r := Receipt{Unit: t.Unit, Run: t.Run, State: stateBegun, BootID: a.bootID(), Started: time.Now().UTC()}
	if err := s.createJSON(jobFile(t.Unit, "receipt.json"), r); err != nil {
		return 1, fmt.Errorf("%s ran before: %w", t.Unit, err)
	}
	work(&r)
	r.State, r.Ended = stateEnded, time.Now().UTC()
	return r.Code, s.writeJSON(jobFile(t.Unit, "receipt.json"), r)
}

func (a *agent) runCommand(ctx context.Context, t Job, r *Receipt, stopped <-chan os.Signal) {
	c := a.command(ctx, t.Args, append([]string{"NIXOS_INSTALL_BOOTLOADER=0"}, t.Env...))
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot run %s: %v\n", t.Args[0], err)
		r.Code = 127
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-ended:
	case <-stopped: // systemd has sent the same signal to every process of the unit
		endBy(c, ended)
	case <-limit(t):
		r.Timeout = true
		_ = unix.Kill(-c.Process.Pid, unix.SIGTERM)
		endBy(c, ended)
	}
	r.Code, r.Signal = status(c.ProcessState)
}

// endBy waits for a command that was asked to end, and then makes it.
func endBy(c *exec.Cmd, ended <-chan error) {
	select {
	case <-ended:
	case <-time.After(stopGrace):
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
		<-ended
	}
}

// limit fires when a job's time is over, never for one that may finish.
func limit(j Job) <-chan time.Time {
	if j.Timeout <= 0 || j.Finish {
		return nil
	}
	return time.After(j.Timeout)
}

var errStopped = errors.New("the job was stopped")

func (a *agent) runOperation(ctx context.Context, t Job, r *Receipt, stopped <-chan os.Signal) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := limit(t)
	go func() {
		select {
		case <-stopped:
			cancel(errStopped)
		case <-over:
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	a.direct = true
	out := a.apply(ctx, t.Run, *t.Operation)
	r.Result = []Outcome{out}
	r.Code = out.Code
	if out.State == opFailed && r.Code == 0 {
		r.Code = 1
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		r.Timeout = true
	case errors.Is(cause, errStopped):
		r.Signal = "TERM"
	}
}

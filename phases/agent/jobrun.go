package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var errStopped = errors.New("the job was stopped")

// runJob is the wrapper inside a transient unit: it records the start before
// the command is executed and the end after, both durable, so that a receipt
// tells the truth whatever happens in between.
func (a *agent) runJob(ctx context.Context, unit string) (int, error) {
	s, job, err := a.ticket(unit)
	if err != nil {
		return 1, err
	}
	ctx, cancel := stoppable(ctx) // from before the start is recorded: who reads of it may end it
	defer cancel()
	gate, err := a.begin(s, job)
	if err != nil {
		return 1, err
	}
	defer gate.Close()
	return a.recorded(s, job, func(r *Receipt) {
		if !job.Commit {
			_ = gate.Close()
		}
		if job.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, job.Timeout)
			defer cancel()
		}
		if job.Operation != nil {
			a.runOperation(ctx, job, r)
		} else {
			a.runCommand(ctx, job, r)
		}
	})
}

// begin lets a job in like any other write: what was asked for under an older
// epoch, or before the host went back, is never begun. One that commits keeps
// the gate to its end, so that no decision is made in the middle.
func (a *agent) begin(s *store, job Job) (io.Closer, error) {
	gate, err := s.gate(false)
	if err != nil {
		return nil, err
	}
	if err := a.admit(s, operation{kind: writes}, Request{Epoch: job.Epoch}); err != nil {
		_ = gate.Close()
		return nil, err
	}
	return gate, nil
}

// stoppable ends a context when systemd stops the unit. It sends the signal to
// every process of the unit, also to those of the command.
func stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-stopped:
			cancel(errStopped)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(stopped); cancel(nil) }
}

// recorded runs work between the two writes of its receipt. Exactly one
// process ever gets past the first: creating it is exclusive.
func (a *agent) recorded(s *store, job Job, work func(*Receipt)) (int, error) {
	alive, err := s.lock(jobFile(job.Unit, "alive"), true)
	if err != nil {
		return 1, err
	}
	defer alive.Close()
	r := Receipt{Unit: job.Unit, Run: job.Run, State: stateBegun, BootID: a.bootID(), Started: time.Now().UTC()}
	if err := s.createJSON(jobFile(job.Unit, "receipt.json"), r); err != nil {
		return 1, fmt.Errorf("%s ran before: %w", job.Unit, err)
	}
	work(&r)
	r.State, r.Ended = stateEnded, time.Now().UTC()
	return r.Code, s.writeJSON(jobFile(job.Unit, "receipt.json"), r)
}

func (a *agent) runCommand(ctx context.Context, job Job, r *Receipt) {
	env := append([]string{"NIXOS_INSTALL_BOOTLOADER=0"}, job.Env...)
	e, err := a.run(ctx, Program{Args: job.Args, Env: env, Stdout: a.Stdout, Stderr: os.Stderr, Grace: stopGrace})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	r.Code, r.Signal, r.Timeout = e.Code, e.Signal, errors.Is(e.Over, context.DeadlineExceeded)
}

func (a *agent) runOperation(ctx context.Context, job Job, r *Receipt) {
	a.direct = true
	out := a.apply(ctx, job.Run, *job.Operation)
	r.Result, r.Code = []Outcome{out}, out.Code
	if out.State == opFailed && r.Code == 0 {
		r.Code = 1
	}
	cause := context.Cause(ctx)
	r.Timeout = errors.Is(cause, context.DeadlineExceeded)
	if errors.Is(cause, errStopped) {
		r.Signal = "TERM"
	}
}

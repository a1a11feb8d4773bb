package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	opDone    = "done"
	opAlready = "already"
	opFailed  = "failed"

	// opLimit bounds one operation, so that one that hangs does not keep a
	// restore from the operations after it.
	opLimit    = 15 * time.Minute
	lockTries  = 3
	lockWaits  = 2 * time.Minute
	switchLock = "/run/nixos/switch-to-configuration.lock"
)

// effect is what a done operation did.
type effect struct {
	already bool
	code    int
	message string
}

// problem is an operation that a program's exit code belongs to.
type problem struct {
	code int
	text string
}

func (p *problem) Error() string { return p.text }

var doers = map[string]func(*agent, context.Context, string, Operation) (effect, error){
	DoStopJob:   (*agent).doStopJob,
	DoActivate:  (*agent).doActivate,
	DoProfile:   (*agent).doProfile,
	DoBoot:      (*agent).doBoot,
	DoWriteFile: (*agent).doWriteFile,
	DoUnits:     (*agent).doUnits,
	DoPin:       (*agent).doPin,
	DoUnpin:     (*agent).doUnpin,
}

// applyNow does one operation for the connection. Those that start programs of
// the system run as a job: a connection that breaks must not break them.
func (a *agent) applyNow(ctx context.Context, op Operation) (Outcome, error) {
	run := a.currentRun()
	if op.Op != DoActivate && op.Op != DoBoot || a.direct {
		return a.apply(context.WithoutCancel(ctx), run, op), nil
	}
	unit := "deployer-" + strings.Trim(run+"-apply-", "-") + "-" + token() + ".service"
	job := Job{Unit: unit, Run: run, Operation: &op, Timeout: opLimit}
	r, err := a.launch(context.WithoutCancel(ctx), job, []string{"job", unit})
	for err == nil && r.State == stateBegun {
		r, err = a.jobWait(ctx, JobRef{Unit: unit, Wait: time.Minute})
	}
	if err != nil {
		return Outcome{}, err
	}
	if len(r.Result) == 0 {
		return Outcome{Op: op, State: opFailed, Unit: unit, Code: r.Code, Message: unit + " was " + r.State + " without a result", Hint: a.hint(run, op)}, nil
	}
	r.Result[0].Unit = unit
	return r.Result[0], nil
}

func (a *agent) currentRun() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run != "" {
		return a.run
	}
	return a.holder.Run
}

func (a *agent) apply(ctx context.Context, run string, op Operation) Outcome {
	start := time.Now()
	out := Outcome{Op: op, State: opDone, Hint: a.hint(run, op)}
	out.Op.Content = nil
	ctx, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	do, ok := doers[op.Op]
	if !ok {
		do = func(*agent, context.Context, string, Operation) (effect, error) {
			return effect{}, fmt.Errorf("this agent does not know the operation %q", op.Op)
		}
	}
	e, err := do(a, ctx, run, op)
	out.Took = time.Since(start).Seconds()
	out.Code, out.Message = e.code, e.message
	if e.already {
		out.State = opAlready
	}
	if err != nil {
		out.State, out.Message = opFailed, err.Error()
		var p *problem
		if errors.As(err, &p) {
			out.Code = p.code
		}
	}
	return out
}

// toplevel is the system that an operation is about.
func (a *agent) toplevel(op Operation) (string, error) {
	top := op.System
	if op.Special != "" {
		if err := checkName("specialisation", op.Special); err != nil {
			return "", err
		}
		top += "/specialisation/" + op.Special
	}
	if !strings.HasPrefix(op.System, "/nix/store/") || filepath.Clean(top) != top {
		return "", fmt.Errorf("%q is not a system in the Nix store", op.System)
	}
	if _, err := os.Stat(a.host(a.resolve(top) + "/bin/switch-to-configuration")); err != nil || a.resolve(top) == "" {
		return "", fmt.Errorf("%s is not on this host, or not a NixOS system", top)
	}
	return top, nil
}

func (a *agent) doActivate(ctx context.Context, _ string, op Operation) (effect, error) {
	if !slices.Contains([]string{"test", "switch", "boot", "dry-activate", "check"}, op.Action) {
		return effect{}, fmt.Errorf("cannot activate with %q: test, switch, boot, dry-activate or check", op.Action)
	}
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	before := a.baseline
	if before == nil {
		if before, err = failing(ctx, a.Units); err != nil {
			return effect{}, err
		}
	}
	for try := 1; ; try++ {
		v, code, err := a.switchTo(ctx, top, op, before)
		switch {
		case err != nil:
			return effect{}, err
		case v.OK:
			return effect{code: code, message: v.Message}, a.confirm(top, op)
		case !v.Retry || try == lockTries:
			return effect{}, &problem{code, top + "/bin/switch-to-configuration " + op.Action + ": " + v.Message}
		}
		if err := a.awaitSwitch(ctx); err != nil {
			return effect{}, &problem{code, v.Message + ", still after " + lockWaits.String()}
		}
	}
}

func (a *agent) switchTo(ctx context.Context, top string, op Operation, before []string) (Verdict, int, error) {
	exit, err := a.program(ctx, a.host(a.resolve(top))+"/bin/switch-to-configuration", op.Action)
	if err != nil {
		return Verdict{}, exit.Code, err
	}
	if op.Action == "test" || op.Action == "switch" {
		after, err := failing(context.WithoutCancel(ctx), a.Units)
		if err != nil {
			return Verdict{}, exit.Code, fmt.Errorf("cannot tell which units fail after the switch: %w", err)
		}
		exit.Before, exit.After, exit.Allow = before, after, op.Allow
		exit.Current = a.resolve("/run/current-system") == a.resolve(top)
	}
	return Judge(exit), exit.Code, nil
}

// confirm reads back what a live activation must have done.
func (a *agent) confirm(top string, op Operation) error {
	if op.Action != "test" && op.Action != "switch" {
		return nil
	}
	if is, want := a.resolve("/run/current-system"), a.resolve(top); is != want {
		return fmt.Errorf("the switch said it was done, but the running system is %s, not %s", is, want)
	}
	return nil
}

// program runs one program of a system, with nixos-rebuild-ng's environment.
func (a *agent) program(ctx context.Context, args ...string) (Exit, error) {
	out := &tail{}
	if a.direct {
		out.also = io.Writer(os.Stdout) // the journal
	}
	c := a.command(ctx, args, []string{"NIXOS_INSTALL_BOOTLOADER=0"})
	c.Stdout, c.Stderr = out, out // one pipe: the order of lines stays
	c.WaitDelay = stopGrace
	err := c.Run()
	if c.ProcessState == nil {
		return Exit{Code: 127}, fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	if cause := context.Cause(ctx); cause != nil {
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
		return Exit{Code: 124}, &problem{124, fmt.Sprintf("%s did not end in time: %v", args[0], cause)}
	}
	e := Exit{Output: clean(string(out.cut()))}
	e.Code, e.Signal = status(c.ProcessState)
	return e, nil
}

// switchLocked tests the lock of switch-to-configuration and gives it back at once.
func (a *agent) switchLocked() bool {
	f, err := os.Open(a.host(switchLock))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func (a *agent) awaitSwitch(ctx context.Context) error {
	for deadline := time.Now().Add(lockWaits); time.Now().Before(deadline); {
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
		if !a.switchLocked() {
			return nil
		}
	}
	return os.ErrDeadlineExceeded
}

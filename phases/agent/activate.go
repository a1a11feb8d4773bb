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

package agent

import (
	"cmp"
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
			return effect{code: code, message: v.Message}, a.readBack(top, op)
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
	if op.live() {
		after, err := failing(context.WithoutCancel(ctx), a.Units)
		if err != nil {
			return Verdict{}, exit.Code, fmt.Errorf("cannot tell which units fail after the switch: %w", err)
		}
		exit.Before, exit.After, exit.Allow = before, after, op.Allow
		exit.Current = a.resolve("/run/current-system") == a.resolve(top)
	}
	return Judge(exit), exit.Code, nil
}

func (op Operation) live() bool { return op.Action == "test" || op.Action == "switch" }

// readBack looks for what a live activation must have done.
func (a *agent) readBack(top string, op Operation) error {
	if is, want := a.resolve("/run/current-system"), a.resolve(top); op.live() && is != want {
		return fmt.Errorf("the switch said it was done, but the running system is %s, not %s", is, want)
	}
	return nil
}

// program runs one program of a system, with nixos-rebuild-ng's environment.
func (a *agent) program(ctx context.Context, args ...string) (Exit, error) {
	said := &tail{}
	out := io.Writer(said)
	if a.direct {
		out = io.MultiWriter(a.Stdout, said) // the journal
	}
	// One pipe for both: the order of lines stays.
	e, err := a.run(ctx, Program{Args: args, Env: []string{"NIXOS_INSTALL_BOOTLOADER=0"}, Stdout: out, Stderr: out, Grace: stopGrace})
	if err == nil && e.Over != nil {
		e.Code, err = 124, &problem{124, fmt.Sprintf("%s did not end in time: %v", args[0], e.Over)}
	}
	return Exit{Code: e.Code, Signal: e.Signal, Output: clean(string(said.cut()))}, err
}

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

// doBoot makes a system the boot default by its own program, and reads it back:
// that program's exit code has lied (nixpkgs pull request 501155).
func (a *agent) doBoot(ctx context.Context, _ string, op Operation) (effect, error) {
	want := *cmp.Or(op.Boot, &Boot{})
	op.System = cmp.Or(op.System, want.System)
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	system := a.resolve(top)
	if is, err := a.boot(); err == nil && is.System == system && (want.Digest == "" || want.Digest == is.Digest) {
		return effect{already: true}, nil
	}
	e, err := a.doActivate(ctx, "", Operation{System: op.System, Special: op.Special, Action: "boot"})
	if err != nil {
		return effect{}, err
	}
	is, err := a.boot()
	switch {
	case err != nil:
		return e, fmt.Errorf("cannot read the boot loader back: %w", err)
	case is.Loader == "":
		e.message = "not verified: no boot loader that can be read was found"
	case is.System != system:
		return e, fmt.Errorf("the boot loader was written, but its default %q starts %s, not %s", is.Default, is.System, system)
	case want.Digest != "" && want.Digest != is.Digest:
		e.message = "the default is as wanted; other entries of the menu differ from before"
	}
	return e, nil
}

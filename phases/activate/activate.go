package activate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// Compile makes the steps of a switch phase.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	return Steps(in, p.Switch.Host, p.Switch.AllowFailed), nil
}

// Steps is the switch of one host, up to `test` or a reboot. Staging goes the same way.
func Steps(in *phases.Inputs, host string, allow []string) []phases.Step {
	on := phases.On{Lane: host, Kind: phases.Idempotent}
	sw := in.SwitchOf(host)
	again := reboot{phases.On{Lane: host, Kind: phases.Reboot}, sw.Reboot, in.SurvivesReboot(host), sw.ConfirmWithin, allow}
	steps := []phases.Step{
		lock{on},     // one deployer at a time; facts under the lock; the old system pinned
		transfer{on}, // the closure; pinned too
		dry{phases.On{Lane: host}, again},
	}
	if s := in.Project.Snapshots; s != nil && len(s.Subvolumes) > 0 {
		steps = append(steps, snapshot{on, s, again.policy})
	}
	steps = append(steps, guard{on, sw.ConfirmWithin}, test{phases.On{Lane: host, Kind: phases.Probe}, allow, again})
	if again.policy != "never" || again.check != nil {
		steps = append(steps, again)
	}
	return steps
}

// unchanged is why the steps of a host that runs the system already are skipped.
func unchanged(env *phases.Env) string {
	if env.Lane.Unchanged() {
		return "the host runs it already"
	}
	return ""
}

// lock takes the host's lock, and looks again, exactly, at what is about to change.
type lock struct{ phases.On }

func (lock) Name() string { return "lock" }

func (lock) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "take the host's lock, pin the running system"}, nil
}

func (lock) Do(ctx context.Context, env *phases.Env) error {
	l := env.Lane
	if err := env.LockLane(ctx, l); err != nil {
		return err
	}
	if moved := drift(l.Seen, l.Before); len(moved) > 0 {
		return &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("the host is not what was planned for: %s", strings.Join(moved, "; ")), Hint: []string{"deployer plan " + env.Runbook.Name}}
	}
	env.Facts(l.Before)
	return l.Call(ctx, agent.OpPin, agent.Pin{Run: env.ID, Name: "old", Path: l.Before.System}, nil)
}

// drift lists what moved between planning and locking. What planning could not
// see is no drift.
func drift(seen, now agent.Facts) []string {
	var d []string
	for _, c := range [][3]string{
		{"the running system", seen.System, now.System},
		{"the profile", seen.Profile.System, now.Profile.System},
		{"the boot default", seen.Boot.System, now.Boot.System},
		{"the boot id", seen.BootID, now.BootID},
	} {
		if c[1] != "" && c[1] != c[2] {
			d = append(d, fmt.Sprintf("%s was %s, is %s", c[0], phases.ShortPath(c[1]), phases.ShortPath(c[2])))
		}
	}
	return d
}

// transfer copies the closure and pins it.
type transfer struct{ phases.On }

func (transfer) Name() string { return "copy" }

func (transfer) Plan(ctx context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "copy " + phases.ShortPath(env.Lane.To.Out), Nothing: env.Lane.Unchanged()}, nil
}

func (transfer) Skip(_ context.Context, env *phases.Env) (string, error) { return unchanged(env), nil }

func (transfer) Do(ctx context.Context, env *phases.Env) error {
	to := env.Lane.To.Out
	found, _, err := env.Room(ctx, env.Lane, env.Plan.Host(env.Lane.Name))
	if err = errors.Join(err, phases.Refuse(found)); err != nil {
		return err
	}
	if err := env.Nix.Copy(ctx, to, env.Lane.Host); err != nil {
		return cutShort(ctx, env, copyFailure(err, env))
	}
	if err := env.Lane.Call(ctx, agent.OpPin, agent.Pin{Run: env.ID, Name: "new", Path: to}, nil); err != nil {
		return err
	}
	var s agent.Sample
	err = env.Lane.Call(ctx, agent.OpProbe, agent.Probe{Kind: "file", Target: to + "/nixos-version", Timeout: 5 * time.Second}, &s)
	if err == nil && !s.OK {
		err = fmt.Errorf("%s is not a NixOS system: it has no nixos-version", to)
	}
	return err
}

// dry asks the new system what it would do with units. It changes nothing.
type dry struct {
	phases.On
	reboot reboot
}

func (dry) Name() string { return "dry-activate" }

func (dry) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "ask the new system what it would restart", Nothing: env.Lane.Unchanged()}, nil
}

func (dry) Skip(_ context.Context, env *phases.Env) (string, error) { return unchanged(env), nil }

func (d dry) Do(ctx context.Context, env *phases.Env) error {
	var res agent.ExecResult
	args := []string{env.Lane.To.Out + "/bin/switch-to-configuration", "dry-activate"}
	if err := env.Lane.Call(ctx, agent.OpExec, agent.ExecArgs{Args: args, Env: environment, Timeout: 2 * time.Minute}, &res); err != nil {
		return err
	}
	out := string(res.Stderr) + string(res.Stdout)
	env.Keep("output.log", []byte(out))
	switch v := agent.Judge(agent.Exit{Code: res.Code, Output: out}); {
	case v.Retry:
		return phases.Retry{After: lockedAgain, Reason: v.Message}
	case v.Reboot:
		return d.reboot.choose(ctx, env, v.Message, clean(out))
	case res.Code != 0:
		return &phases.Failure{Exit: phases.ExitFailed, Err: fmt.Errorf("dry-activate ended with exit code %d", res.Code), Output: tail(out, 20)}
	}
	env.Facts(map[string]any{"says": clean(out)})
	if why := d.reboot.pending(ctx, env); why != "" {
		return d.reboot.choose(ctx, env, why, nil)
	}
	return nil
}

func clean(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
}

func tail(s string, n int) []string {
	lines := clean(s)
	return lines[max(0, len(lines)-n):]
}

// environment is what nixos-rebuild gives switch-to-configuration: boot loader
// entries are written, the loader itself is not installed anew.
var environment = []string{"NIXOS_INSTALL_BOOTLOADER=0", "LOCALE_ARCHIVE=/run/current-system/sw/lib/locale/locale-archive"}

// noSync leaves out the sync of the store before a trial: a power cut then
// starts the old system anyway. The commit's `boot` syncs.
const noSync = "NIXOS_NO_SYNC=1"

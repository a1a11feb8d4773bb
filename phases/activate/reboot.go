package activate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// reboot boots the new system once, where it cannot be activated live, or where
// the runbook wants to see that it boots. The old system stays the boot
// default, so any other boot is a way back; the guard's time counts from the boot.
type reboot struct {
	phases.On
	policy string          // ask, auto, never
	check  *runbooks.Check // survives-reboot: it is made in any case
	within time.Duration   // for a decision after the boot
	allow  []string
}

func (r reboot) Name() string {
	if r.check != nil {
		return r.check.Name
	}
	return "reboot"
}

// Requires finds a host whose guard would not be there after the boot.
func (r reboot) Requires(_ context.Context, env *phases.Env) []phases.Finding {
	if r.check == nil || env.Lane.Seen.Module {
		return nil
	}
	return []phases.Finding{{Host: env.Lane.Name, What: noModule("old").Error(), Hint: phases.HostModuleHint}}
}

func noModule(which string) error {
	return fmt.Errorf("a reboot needs a guard that outlives it: the %s system does not import deployer-host.nix", which)
}

func (r reboot) Plan(ctx context.Context, env *phases.Env) (phases.Change, error) {
	l := env.Lane
	c := phases.Change{Nothing: l.Unchanged(), Text: "reboot into " + phases.ShortPath(l.To.Out) + " once; the old system stays the default"}
	why := r.reason(ctx, env)
	switch lacks := phases.LacksModule(l); {
	case c.Nothing:
	case why != "" && lacks != "":
		return c, phases.Precondition(noModule(lacks), phases.HostModuleHint...)
	case why != "":
		c.Text += " (" + why + ")"
	default:
		c.Text, c.Unknown = "only if it cannot be activated live"+map[string]string{"ask": ", and somebody agrees"}[r.policy]+": "+c.Text, true
	}
	return c, nil
}

// reason is why there is a reboot, as far as is known without trying.
func (r reboot) reason(ctx context.Context, env *phases.Env) string {
	if r.check != nil {
		return "to see that it boots"
	}
	return r.pending(ctx, env)
}

// pending is what of a new system waits for a reboot, where the policy is not to wait.
func (r reboot) pending(ctx context.Context, env *phases.Env) string {
	if r.policy != "auto" {
		return ""
	}
	if differ := nix.RebootReason(env.Lane.Surveyed(ctx).Booted, env.Lane.To.Out); differ != "" {
		return differ + " differ from what was booted"
	}
	return ""
}

// choose decides for the reboot, before anything of the host is switched.
func (r reboot) choose(ctx context.Context, env *phases.Env, why string, out []string) error {
	l := env.Lane
	if r.policy == "never" {
		return &phases.Failure{Exit: phases.ExitFailed, Err: fmt.Errorf("%s: this needs a reboot, and the runbook says `reboot: never`", why), Output: last(out),
			Hint: []string{"# in the runbook's switch: reboot: auto"}}
	}
	if err := r.possible(ctx, env); err != nil {
		return err
	}
	if r.policy == "ask" && r.check == nil {
		text := fmt.Sprintf("%s reboots into %s: %s", l.Name, phases.ShortPath(l.To.Out), why)
		by, err := env.Ask.Sign(ctx, "reboot", text)
		if err != nil {
			f := *phases.AsFailure(err)
			f.Output = last(out)
			return &f
		}
		if err := env.Decided(state.Record{Kind: state.Decision, Host: l.Name, Text: text, Reason: "agreed to by " + by}); err != nil {
			return err
		}
	}
	l.Reboot = why
	return nil
}

// possible refuses a reboot that would be no way back, or that nobody watches.
func (r reboot) possible(ctx context.Context, env *phases.Env) error {
	l := env.Lane
	if l.Before.Boot.System == "" || l.Before.Boot.System == l.To.Out {
		return phases.Precondition(fmt.Errorf("a reboot would not be undone by another: the boot default is %q", phases.ShortPath(l.Before.Boot.System)),
			"ssh "+l.Conf.Address+" bootctl list")
	}
	if !l.Seen.Module {
		return phases.Precondition(noModule("old"), phases.HostModuleHint...)
	}
	var s agent.Sample
	err := l.Call(ctx, agent.OpProbe, agent.Probe{Kind: "file", Target: l.To.Out + "/" + agent.ModuleUnit, Timeout: 5 * time.Second}, &s)
	if err == nil && !s.OK {
		err = phases.Precondition(noModule("new"), phases.HostModuleHint...)
	}
	return err
}

func (r reboot) Skip(ctx context.Context, env *phases.Env) (string, error) {
	l := env.Lane
	if why := unchanged(env); why != "" || l.Reboot != "" {
		return why, nil
	}
	var now agent.Facts
	err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now)
	if err == nil && now.System == l.To.Out && now.BootID == l.Before.BootID && r.reason(ctx, env) == "" {
		return "it was activated live", nil
	}
	return "", err
}

// Undo takes the choice of the next boot back; a host that has booted meanwhile
// boots its old default again, from the root that it had.
func (r reboot) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	f := env.Lane.Current()
	b := f.Boot
	return append(env.Lane.Returns(),
		agent.Operation{Op: agent.DoTrial, Boot: &b},
		agent.Operation{Op: agent.DoReboot, System: b.System, BootID: f.BootID},
	), nil
}

// Do may be done again at any time: the boot id tells whether it has happened.
func (r reboot) Do(ctx context.Context, env *phases.Env) error {
	l := env.Lane
	var now agent.Facts
	err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now)
	if err == nil && now.BootID == l.Before.BootID {
		now, err = r.reboot(ctx, env)
	}
	if err != nil {
		return err
	}
	env.Facts(map[string]any{"why": l.Reboot, "boot_id": now.BootID, "booted": now.Booted, "was": l.Before.BootID})
	if to := l.To.Out; now.Booted != to || now.System != to {
		return fmt.Errorf("the host booted %s, not %s", phases.ShortPath(now.Booted), phases.ShortPath(to))
	}
	return r.settle(ctx, env, now.BootID)
}

func (r reboot) reboot(ctx context.Context, env *phases.Env) (now agent.Facts, err error) {
	l, stays := env.Lane, env.Lane.Before.Boot
	if err := r.possible(ctx, env); err != nil {
		return now, err
	}
	if _, err := l.Apply(ctx, agent.Operation{Op: agent.DoTrial, System: l.To.Out, Boot: &stays}); err != nil {
		return now, err
	}
	if err := l.Announce(ctx, env.ID, r.within); err != nil {
		return now, fmt.Errorf("the guard was not told, so nothing was rebooted: %w", err)
	}
	env.Say("rebooting into " + phases.ShortPath(l.To.Out))
	_, err = l.Apply(ctx, agent.Operation{Op: agent.DoReboot, System: l.To.Out})
	if err != nil && !phases.IsLost(err) && !errors.Is(err, phases.ErrRebooting) {
		return now, err
	}
	limit := phases.BootLimit
	if r.check != nil {
		limit = r.check.Within
	}
	return l.Rebooted(ctx, l.Before.BootID, limit)
}

// settle waits for the end of the boot and for the guard, and judges the units.
func (r reboot) settle(ctx context.Context, env *phases.Env, boot string) error {
	l := env.Lane
	if err := l.Rebased(ctx, env.ID, boot); err != nil {
		return err
	}
	wait := agent.ExecArgs{Args: []string{"systemctl", "is-system-running", "--wait"}, Timeout: time.Minute}
	if err := l.Call(ctx, agent.OpExec, wait, nil); err != nil { // whatever it says: the units tell
		return err
	}
	var now agent.Facts
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	if v := agent.Judge(agent.Exit{Before: l.Before.Failed, After: now.Failed, Allow: r.allow}); !v.OK {
		return activationFailed(errors.New("after the reboot "+v.Message), nil)
	}
	return nil
}

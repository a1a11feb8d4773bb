package activate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

// test activates the new system without making it anybody's default.
type test struct {
	phases.On
	allow  []string
	reboot reboot
}

// testTimeout bounds an activation; systemd's own time limits end before that.
const testTimeout = 15 * time.Minute

func (test) Name() string { return "test" }

func (test) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "activate " + phases.ShortPath(env.Lane.To.Out) + "; profile and boot default stay", Nothing: env.Lane.Unchanged()}, nil
}

func (test) Skip(_ context.Context, env *phases.Env) (string, error) {
	if why := env.Lane.Reboot; why != "" {
		return "it is booted, not activated live: " + why, nil
	}
	return unchanged(env), nil
}

// Undo stops an activation that may still run. The rest of the way back is the
// guard's, and in the recipe before this.
func (t test) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	return []agent.Operation{{Op: agent.DoStopJob, Unit: unit(env)}}, nil
}

func inStore(path string) bool { return strings.HasPrefix(path, "/nix/store/") }

func lasting(active []string) []string {
	var units []string
	for _, u := range active {
		if phases.Lasting(u) && (strings.HasSuffix(u, ".service") || strings.HasSuffix(u, ".timer") || strings.HasSuffix(u, ".socket")) {
			units = append(units, u)
		}
	}
	return units
}

func unit(env *phases.Env) string {
	return fmt.Sprintf("deployer-%s-test-%d.service", env.ID, max(env.Attempt, 1))
}

func (t test) Do(ctx context.Context, env *phases.Env) error {
	l := env.Lane
	job := agent.Job{
		Unit: unit(env), Run: env.ID, Timeout: testTimeout, Env: append(environment, noSync),
		Args: []string{l.To.Out + "/bin/switch-to-configuration", "test"},
	}
	rec, out, err := l.Do(ctx, env, job)
	if err != nil {
		return err
	}
	var now agent.Facts
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	env.Facts(map[string]any{"code": rec.Code, "system": now.System, "failed": now.Failed})
	return t.judge(ctx, env, rec, now, out)
}

// judge applies the table of exit codes: 4 counts only for units that did not
// fail before, a held lock waits, 100 and inhibitors need a reboot.
func (t test) judge(ctx context.Context, env *phases.Env, rec agent.Receipt, now agent.Facts, out []string) error {
	l := env.Lane
	if rec.Timeout {
		return activationFailed(fmt.Errorf("the activation did not end within %s and was stopped", testTimeout), out)
	}
	v := agent.Judge(agent.Exit{
		Code: rec.Code, Signal: rec.Signal, Output: strings.Join(out, "\n"), Before: l.Before.Failed, After: now.Failed,
		Allow: t.allow, Current: now.System == l.To.Out,
	})
	switch {
	case v.Retry:
		return phases.Retry{After: lockedAgain, Reason: v.Message}
	case v.Reboot:
		err := t.reboot.choose(ctx, env, v.Message, out)
		if f := phases.AsFailure(err); f.Exit == phases.ExitWaiting { // the guard does not wait for anybody
			f.Exit = phases.ExitFailed
			return f
		}
		return err
	case !v.OK:
		return activationFailed(errors.New(v.Message), out)
	case now.System != l.To.Out:
		return activationFailed(fmt.Errorf("the host runs %s after the activation", phases.ShortPath(now.System)), out)
	}
	return nil
}

// lockedAgain is when a host whose switch is locked by somebody else is asked again.
const lockedAgain = 5 * time.Second

func activationFailed(err error, out []string) error {
	return &phases.Failure{Exit: phases.ExitFailed, Err: err, Output: last(out)}
}

func last(out []string) []string { return out[max(0, len(out)-20):] }

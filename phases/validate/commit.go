package validate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

const systemProfile = "/nix/var/nix/profiles/system"

// profile makes the new system the profile's current generation.
type profile struct{ phases.On }

func (profile) Name() string { return "profile" }

func (profile) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	n, _ := next(env.Lane)
	return phases.Change{Text: fmt.Sprintf("commit: generation %d → %d", env.Lane.Current().Profile.Generation, n), Nothing: env.Lane.Unchanged()}, nil
}

func (profile) Skip(_ context.Context, env *phases.Env) (string, error) {
	if f := env.Lane.Current(); f.Profile.System == env.Lane.To.Out {
		return "the profile has it already", nil
	}
	return "", nil
}

// next is the generation that `nix-env --set` will make, and whether it is new:
// Nix uses the newest one again if its path is the same.
func next(l *phases.Lane) (number int, created bool) {
	highest := agent.Generation{}
	for _, g := range l.Current().Profile.Generations {
		if g.Number > highest.Number {
			highest = g
		}
	}
	if highest.System == l.To.Out && highest.Number > 0 {
		return highest.Number, false
	}
	return highest.Number + 1, true
}

// Undo sets the recorded generation, never "the previous one", and drops the
// one that this run made.
func (profile) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	was := env.Lane.Current().Profile
	op := agent.Operation{Op: agent.DoProfile, Profile: systemProfile, Generation: was.Generation, System: was.System}
	if n, created := next(env.Lane); created {
		op.Drop, op.DropSystem = n, env.Lane.To.Out
	}
	return []agent.Operation{op}, nil
}

func (profile) Do(ctx context.Context, env *phases.Env) error {
	if err := asValidated(ctx, env); err != nil {
		return err
	}
	out, err := env.Lane.Apply(ctx, agent.Operation{Op: agent.DoProfile, Profile: systemProfile, System: env.Lane.To.Out})
	env.Facts(out)
	return err
}

// asValidated looks once more before the first commit step: a host that does not
// run what was validated goes back. Where somebody else has set the profile
// under our lock the run is held: neither to go on nor to go back would be right
// without a person.
func asValidated(ctx context.Context, env *phases.Env) error {
	var now agent.Facts
	if err := env.Lane.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	if now.System != env.Lane.To.Out {
		return fmt.Errorf("the host runs %s, not what was validated: it was rebooted or changed since", phases.ShortPath(now.System))
	}
	was, is := env.Lane.Current().Profile, now.Profile
	if is.System == env.Lane.To.Out || is.System == was.System && is.Generation == was.Generation {
		return nil
	}
	return &phases.Failure{Exit: phases.ExitWaiting,
		Err:  fmt.Errorf("somebody else changed the profile during the run: generation %d was %s, now it is %d, %s", was.Generation, phases.ShortPath(was.System), is.Generation, phases.ShortPath(is.System)),
		Hint: []string{"nix-env -p " + systemProfile + " --list-generations   # on the host"},
	}
}

// boot makes the new system the boot default.
type boot struct{ phases.On }

// bootTimeout bounds the writing of boot loader entries.
const bootTimeout = 2 * time.Minute

func (boot) Name() string { return "boot" }

func (boot) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	text := "commit: boot default"
	if l := env.Lane.Seen.Boot.Loader; l != "" {
		text += " (" + l + ")"
	}
	return phases.Change{Text: text, Nothing: env.Lane.Unchanged()}, nil
}

func (boot) Skip(_ context.Context, env *phases.Env) (string, error) {
	if f := env.Lane.Current(); f.Boot.System == env.Lane.To.Out {
		return "it is the boot default already", nil
	}
	return "", nil
}

func (boot) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	was := env.Lane.Current()
	b := was.Boot
	system := b.System
	if system == "" {
		system = was.Profile.System
	}
	return []agent.Operation{{Op: agent.DoBoot, System: system, Boot: &b}}, nil
}

func (boot) Do(ctx context.Context, env *phases.Env) error {
	l := env.Lane
	rec, out, err := l.Do(ctx, env, agent.Job{
		Unit: fmt.Sprintf("deployer-%s-boot-%d.service", env.ID, max(env.Attempt, 1)), Run: env.ID, Timeout: bootTimeout, Commit: true, Env: []string{"NIXOS_INSTALL_BOOTLOADER=0"},
		Args: []string{l.To.Out + "/bin/switch-to-configuration", "boot"},
	})
	if errors.Is(err, phases.ErrNoEnd) { // written again, it is as good
		return phases.Retry{Reason: err.Error()}
	}
	if err != nil {
		return err
	}
	if rec.Code != 0 {
		return &phases.Failure{Exit: phases.ExitFailed, Err: fmt.Errorf("the boot loader could not be written (exit code %d)", rec.Code), Output: out[max(0, len(out)-20):]}
	}
	if l.Trial() { // that has served
		end := agent.Operation{Op: agent.DoTrial, Boot: &agent.Boot{Loader: l.Current().Boot.Loader, System: l.To.Out}}
		if _, err := l.Apply(ctx, end); err != nil {
			return err
		}
	}
	return readBack(ctx, env)
}

// readBack believes the boot loader's files, not an exit code.
func readBack(ctx context.Context, env *phases.Env) error {
	var now agent.Facts
	if err := env.Lane.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	to := env.Lane.To.Out
	env.Facts(map[string]any{"boot": now.Boot, "profile": now.Profile.Generation})
	switch {
	case now.Profile.System != to:
		return fmt.Errorf("the profile is %s after the commit", phases.ShortPath(now.Profile.System))
	case now.Boot.Loader != "" && now.Boot.System != to:
		return fmt.Errorf("the boot default is %s after the commit", phases.ShortPath(now.Boot.System))
	case now.System != to:
		return fmt.Errorf("the host runs %s after the commit", phases.ShortPath(now.System))
	}
	return nil
}

// confirm ends the guard's watch, over a new connection: from here on the host
// stays as it is. Exactly one of this and the guard's firing happens.
type confirm struct{ phases.On }

func (confirm) Name() string { return "confirm" }

func (confirm) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "commit: tell the host's guard, over a new connection", Nothing: env.Lane.Unchanged()}, nil
}

func (confirm) Skip(_ context.Context, env *phases.Env) (string, error) {
	if env.Lane.Unchanged() {
		return "the host runs it already", nil
	}
	return "", nil
}

func (confirm) Do(ctx context.Context, env *phases.Env) error {
	env.Lane.Forget()
	d, err := env.Lane.Confirm(ctx, env.ID)
	env.Facts(d)
	return err
}

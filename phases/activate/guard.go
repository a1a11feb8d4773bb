package activate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

// guard arms the host's dead-man's switch: from here on the host goes back by
// itself unless somebody who could log in says within its time that all is well.
type guard struct {
	phases.On
	within time.Duration
}

func (guard) Name() string { return "guard" }

func (g guard) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "arm the host's guard: without a confirmation within " + g.within.String() + " the host goes back by itself", Nothing: env.Lane.Unchanged()}, nil
}

func (guard) Skip(_ context.Context, env *phases.Env) (string, error) { return unchanged(env), nil }

// Undo puts back data and declared files, activates what ran, and starts what was active.
func (guard) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	f := env.Lane.Current()
	ops := slices.Clone(phases.WithBoot(env.Lane.Data, f))
	for _, f := range env.Lane.Files {
		op := agent.Operation{Op: agent.DoWriteFile, Path: f.Path, Digest: f.Digest, Mode: f.Mode, Owner: f.Owner, Content: f.Content}
		switch {
		case f.Link != "":
			op = agent.Operation{Op: agent.DoWriteFile, Path: f.Path, Link: f.Link}
		case inStore(f.Target): // by a folder that is a link: the activation brings it back
			continue
		}
		ops = append(ops, op)
	}
	// A specialisation that runs is a path of its own: what is below it has none.
	ops = append(ops, agent.Operation{Op: agent.DoActivate, System: f.System, Action: "test", Allow: f.Failed})
	if units := lasting(f.Active); len(units) > 0 {
		ops = append(ops, agent.Operation{Op: agent.DoUnits, Units: units})
	}
	return ops, nil
}

// Do implements phases.Step. The budget counts from here; while the activation
// runs and this controller lives it is extended, up to the activation's own limit.
func (g guard) Do(ctx context.Context, env *phases.Env) error {
	left, err := env.Lane.Arm(ctx, agent.Arming{
		Run: env.ID, To: env.Lane.To.Out, Budget: g.within.Seconds(), Cap: (testTimeout + g.within).Seconds(),
	})
	if err != nil {
		return fmt.Errorf("the guard is not armed, so nothing was switched: %w", err)
	}
	env.Facts(left)
	return nil
}

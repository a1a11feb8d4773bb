// Package staging sends the new revision to another host first: the same
// switch, validate and commit as production's, then checks of its own. What it
// proved is kept in the run's record as evidence.
package staging

import (
	"context"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/activate"
	"github.com/hbohlen/deployer/phases/validate"
	"github.com/hbohlen/deployer/runbooks"
)

// Compile makes the steps of a staging phase.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	host := p.Staging.Host
	steps := activate.Steps(in, host, nil)
	steps = append(steps, validate.Steps(host, in.Validation().Checks)...)
	steps = validate.Checks(host, steps, p.Staging.Checks)
	return append(steps, evidence{phases.On{Lane: host}}), nil
}

// evidence records what staging ran, of which revision.
type evidence struct{ phases.On }

func (evidence) Name() string { return "evidence" }

func (evidence) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "record what was proved: revision and system"}, nil
}

func (evidence) Do(_ context.Context, env *phases.Env) error {
	env.Facts(map[string]string{"revision": env.Revision, "system": env.Lane.To.Out, "plan": env.Plan.Digest})
	return nil
}

// Package gate is a checklist: automatic items are checked, the others are
// signed by a person at the prompt or by a recorded flag. A gate changes
// nothing on any host.
package gate

import (
	"context"
	"fmt"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/validate"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Compile makes one step of each item. Checks look at the hosts that the
// runbook switches.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	var steps []phases.Step
	for i, item := range p.Gate.Items {
		if item.Check == nil {
			steps = append(steps, sign{n: i + 1, who: item.Sign, text: item.Text})
			continue
		}
		for _, host := range in.Switched() {
			steps = validate.Checks(host, steps, []*runbooks.Check{item.Check})
		}
	}
	return steps, nil
}

// sign asks a person to confirm something that no check can see.
type sign struct {
	n         int
	who, text string
}

// Class implements phases.Classer: who has signed is not asked again.
func (sign) Class() phases.Class { return phases.Idempotent }

func (s sign) Name() string { return fmt.Sprintf("sign-%d", s.n) }

func (s sign) Plan(context.Context, *phases.Env) (phases.Change, error) {
	return phases.Change{Text: fmt.Sprintf("%s signs: %s", s.who, s.text)}, nil
}

func (s sign) Do(ctx context.Context, env *phases.Env) error {
	by, err := env.Ask.Sign(ctx, s.who, s.text)
	if err != nil {
		return err
	}
	return env.Decided(state.Record{Kind: state.Decision, Text: s.text, Reason: "signed for " + s.who + " by " + by})
}

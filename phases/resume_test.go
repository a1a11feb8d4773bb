package phases_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
)

// makes is a step that plans a system.
type makes struct {
	phases.On
	out   string
	times *int
}

func (makes) Name() string                          { return "system" }
func (makes) Do(context.Context, *phases.Env) error { return nil }
func (m makes) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	*m.times++
	env.Lane.To = nix.System{Out: m.out}
	return phases.Change{}, nil
}

// A run that was taken up on another machine had nothing to copy there: what was
// built lay on the first.
func TestASystemThatIsNotHereIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here := t.TempDir()
		for _, tt := range []struct {
			name, planned, makes string
			times, exit          int
		}{
			{"it is here", here, "", 0, phases.ExitOK},
			{"it is not", "/nix/store/absent", "/nix/store/absent", 1, phases.ExitOK},
			{"the source has moved", "/nix/store/absent", "/nix/store/other", 1, phases.ExitRefused},
		} {
			r, times := newRig(t, "a@h1").run, 0
			r.Plan = &phases.Plan{Hosts: []phases.PlanHost{{Name: "h1", To: tt.planned}}}
			r.Phases = []phases.Compiled{{Name: "build", Kind: "build", Steps: []phases.Step{makes{phases.On{Lane: "h1"}, tt.makes, &times}}}}
			err := r.Restock(t.Context())
			exit := phases.ExitOK
			if err != nil {
				exit = phases.AsFailure(err).Exit
			}
			if exit != tt.exit || times != tt.times {
				t.Errorf("%s: %v, made %d times", tt.name, err, times)
			}
		}
	})
}

// A host that a resumed process locks first keeps the plan as well: it may be
// the one that the next process asks.
func TestASeizedHostKeepsThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1")
		r.run.Lanes[0].Locked = false
		var asked agent.LockArgs
		r.machines["h1"].Handle(agent.OpLock, func(args json.RawMessage) (any, error) { return agent.Holder{Epoch: 4}, json.Unmarshal(args, &asked) })
		if err := r.run.Seize(t.Context(), r.runner.Log, 4, false); err != nil {
			t.Fatal(err)
		}
		if !asked.Take || asked.AtLeast != 4 || !strings.Contains(string(asked.Plan), `"digest":"plan"`) {
			t.Errorf("asked with %+v", asked)
		}
	})
}

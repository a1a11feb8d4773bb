package cli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/state"
)

// A rollback that was gone on with had its data chosen anew, by policy. What it
// had chosen is in its record; and on a host that goes back, in the recipe.
func TestAResumedRollbackKeepsItsChoice(t *testing.T) {
	data, etc := agent.Snapshot{UUID: "d", Source: "/data", Policy: phases.Ask}, agent.Snapshot{UUID: "e", Source: "/etc", Policy: phases.Restore}
	goes := &agent.Decision{Decision: agent.Restoring}
	for name, c := range map[string]struct {
		knows agent.Lane
		o     rollbackOptions
		want  []string
	}{
		"it had not begun":         {agent.Lane{}, rollbackOptions{goesBack: map[string][]string{"h1": {"/data"}}}, []string{"/data"}},
		"it keeps all":             {agent.Lane{}, rollbackOptions{goesBack: map[string][]string{"h1": {}}}, []string{}},
		"another was chosen since": {agent.Lane{}, rollbackOptions{data: phases.Keep, subvolumes: []string{"/data"}, goesBack: map[string][]string{"h1": {"/data", "/etc"}}}, []string{"/etc"}},
		"it is under way":          {agent.Lane{Decision: goes}, rollbackOptions{}, []string{"/data"}},
		"it is done":               {agent.Lane{Decision: goes, Closing: &agent.Closing{Outcome: "restored"}}, rollbackOptions{}, []string{"/data"}},
		"it is stuck":              {agent.Lane{Decision: goes, Closing: &agent.Closing{Outcome: "stuck"}}, rollbackOptions{goesBack: map[string][]string{"h1": {"/etc"}}}, []string{"/etc"}},
		"it is chosen":             {agent.Lane{}, rollbackOptions{data: phases.Restore}, []string{"/data", "/etc"}},
	} {
		m := phasetest.Make(t, "h1")
		m.Handle(agent.OpLane, func(json.RawMessage) (any, error) { return c.knows, nil })
		m.Handle(agent.OpSnapshots, func(json.RawMessage) (any, error) { return []agent.Snapshot{data, etc}, nil })
		l := m.Env().Lane
		l.Recipe.Snapshots = []agent.Snapshot{data, etc}
		l.Recipe.Operations = agent.WayBack([]agent.Snapshot{data}) // as it is on the host
		r := &phases.Run{Undoes: "r0", Lanes: []*phases.Lane{l}}
		ask, _ := newAsker()
		ask.noInput = true
		if err := ask.chooseData(t.Context(), r, &c.o, ask); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		created, _ := json.Marshal(state.Created{GoesBack: goingBack(r)})
		got := state.Fold([]state.Record{{Seq: 1, Run: "r2", Kind: state.RunCreated, Data: created}}).GoesBack["h1"]
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

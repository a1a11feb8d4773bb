package activate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// snapshot takes a read-only snapshot of every declared subvolume.
type snapshot struct {
	phases.On
	settings *runbooks.Snapshots
}

func (snapshot) Name() string { return "snapshot" }

func (s snapshot) paths() []string {
	var p []string
	for path := range s.settings.Subvolumes {
		p = append(p, path)
	}
	slices.Sort(p)
	return p
}

func (s snapshot) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "read-only: " + strings.Join(s.paths(), ", "), Nothing: env.Lane.Unchanged()}, nil
}

func (snapshot) Skip(_ context.Context, env *phases.Env) (string, error) { return unchanged(env), nil }

// Requires finds paths that are not on Btrfs. The rest is found under the lock,
// before anything is changed.
func (s snapshot) Requires(_ context.Context, env *phases.Env) []phases.Finding {
	var found []phases.Finding
	for _, path := range s.paths() {
		for _, sp := range env.Lane.Seen.Space {
			if sp.Path == path && sp.FS != "" && sp.FS != "btrfs" {
				found = append(found, phases.Finding{Host: env.Lane.Name,
					What: fmt.Sprintf("a snapshot of %s is wanted, but it is on %s, not Btrfs", path, sp.FS),
					Hint: []string{"# take it out of `snapshots:` in deployer.yaml; then its data is not covered"}})
			}
		}
	}
	return found
}

func (s snapshot) Do(ctx context.Context, env *phases.Env) error {
	req := phases.SnapshotRequest{Run: env.ID, Host: env.Lane.Name, Op: env.Op(), Settings: s.settings, Operate: env.Lane.Raw}
	plan, err := env.Snapshots.Plan(ctx, req)
	if err != nil {
		return err
	}
	if len(plan.Problems) > 0 {
		return phases.Precondition(fmt.Errorf("cannot take the snapshots: %s", strings.Join(plan.Problems, "; ")), "ssh "+env.Lane.Conf.Address+" findmnt -t btrfs")
	}
	set, recipe, err := env.Snapshots.Create(ctx, req)
	if err != nil {
		return err
	}
	env.Lane.Recipe.Snapshots = set.Snapshots
	env.Facts(struct {
		Snapshots  []agent.Snapshot  `json:"snapshots"`
		Recipe     []agent.Operation `json:"recipe,omitempty"`
		NotCovered []string          `json:"not_covered,omitempty"`
	}{set.Snapshots, recipe, plan.NotCovered})
	return check(set)
}

// check trusts no provider: what it says it took must be read-only.
func check(set agent.SnapshotSet) error {
	for _, s := range set.Snapshots {
		if !s.ReadOnly {
			b, _ := json.Marshal(s)
			return fmt.Errorf("the snapshot provider returned a writable snapshot: %s", b)
		}
	}
	return nil
}

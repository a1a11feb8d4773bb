package activate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// snapshot takes a read-only snapshot of every declared subvolume, and learns
// the way back to those that a rollback restores.
type snapshot struct {
	phases.On
	settings *runbooks.Snapshots
	reboot   string // the policy: the root goes back by a reboot
}

func (snapshot) Name() string { return "snapshot" }

func (s snapshot) paths() []string { return slices.Sorted(maps.Keys(s.settings.Subvolumes)) }

func (s snapshot) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	text := "read-only: " + strings.Join(s.paths(), ", ")
	for _, p := range s.paths() {
		if units := s.settings.Subvolumes[p].Pause; len(units) > 0 {
			text += "; meanwhile paused: " + strings.Join(units, ", ")
		}
		if units := s.settings.Subvolumes[p].Stop; len(units) > 0 {
			text += "; meanwhile stopped: " + strings.Join(units, ", ")
		}
	}
	c := phases.Change{Text: text, Nothing: env.Lane.Unchanged()}
	root := s.settings.Subvolumes["/"]
	if c.Nothing || root == nil || root.OnRollback == phases.Keep {
		return c, nil
	}
	switch s.reboot {
	case "auto":
		c.Text += "; a rollback that puts / back reboots the host, its own guard too"
	case "never":
		return c, phases.Precondition(errors.New("/ goes back by a reboot only, and the runbook says `reboot: never`"), "# in deployer.yaml: /: keep", "# or in the runbook's switch: reboot: ask")
	default:
		c.Text += "; / goes back by a reboot: `deployer rollback` does that, a rollback by itself leaves / as it is (reboot: ask)"
	}
	return c, nil
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
	l := env.Lane
	req := phases.SnapshotRequest{Run: env.ID, Host: l.Name, Op: env.Op(), Stamp: env.Since, Generation: l.Current().Profile.Generation, Settings: s.settings, Operate: l.Raw}
	plan, err := env.Snapshots.Plan(ctx, req)
	if err != nil {
		return err
	}
	if len(plan.Problems) > 0 {
		return phases.Precondition(fmt.Errorf("cannot take the snapshots: %s", strings.Join(plan.Problems, "; ")), "ssh "+l.Conf.Address+" findmnt -t btrfs")
	}
	set, recipe, err := env.Snapshots.Create(ctx, req)
	if err != nil {
		return err
	}
	if err := check(set, recipe); err != nil {
		return err
	}
	recipe = phases.Unasked(recipe, s.reboot, l.Current())
	l.Recipe.Snapshots, l.Data = set.Snapshots, recipe
	env.Facts(struct {
		agent.SnapshotSet
		Recipe []agent.Operation `json:"recipe,omitempty"`
	}{set, recipe})
	if set.Consistency != "" && set.Consistency != agent.Single {
		env.Note(state.Note, fmt.Sprintf("the set is %s: units stood still for %.0f ms", set.Consistency, set.Paused*1000))
	}
	return nil
}

// check trusts no provider: what it says it took must be read-only, and its
// recipe may only go back to that.
func check(set agent.SnapshotSet, recipe []agent.Operation) error {
	taken := map[string]bool{}
	for _, s := range set.Snapshots {
		if taken[s.UUID] = true; !s.ReadOnly {
			b, _ := json.Marshal(s)
			return fmt.Errorf("the snapshot provider returned a writable snapshot: %s", b)
		}
	}
	for _, op := range recipe {
		ok := op.Op == agent.DoStart || op.Op == agent.DoData && op.Data != nil && !op.Data.Itself &&
			!slices.ContainsFunc(op.Data.Snapshots, func(s agent.Snapshot) bool { return !taken[s.UUID] })
		if !ok {
			b, _ := json.Marshal(op)
			return fmt.Errorf("the snapshot provider's recipe has an operation that is not allowed in it: %s", b)
		}
	}
	return nil
}

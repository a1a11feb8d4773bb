package phases

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// The policies of a subvolume: what a rollback does with its data.
const (
	Keep    = "keep"
	Restore = "restore"
	Ask     = "ask"
)

// policies says what a rollback does with each declared subvolume.
func policies(s *runbooks.Snapshots) string {
	by := map[string][]string{}
	for _, path := range slices.Sorted(maps.Keys(s.Subvolumes)) {
		p := s.Subvolumes[path].OnRollback
		by[p] = append(by[p], path)
	}
	text := "snapshots are kept"
	for _, p := range []struct{ policy, says string }{
		{Keep, "a rollback leaves %s as the new system left it (keep)"},
		{Restore, "a rollback puts %s back as before the run, and keeps what it replaces (restore)"},
		{Ask, "`deployer rollback` asks about %s, a rollback by itself leaves it as it is (ask)"},
	} {
		if list := by[p.policy]; len(list) > 0 {
			text += "; " + fmt.Sprintf(p.says, strings.Join(list, ", "))
		}
	}
	return text
}

// GoesBack tells whether the lane's recipe restores a snapshot's subvolume.
func (l *Lane) GoesBack(s agent.Snapshot) bool {
	return slices.ContainsFunc(l.Recipe.Operations, func(op agent.Operation) bool {
		return op.Data != nil && !op.Data.Itself && slices.ContainsFunc(op.Data.Snapshots, func(o agent.Snapshot) bool { return o.UUID == s.UUID })
	})
}

// GoesBackAlready tells whether the host was told to go back by the lane's recipe:
// then that is what was chosen. Of a lane that is stuck it may be chosen anew.
func (l *Lane) GoesBackAlready(ctx context.Context, run string) (bool, error) {
	seen, err := l.known(ctx, run)
	stuck := seen.Closing != nil && seen.Closing.Outcome == string(state.Stuck)
	return seen.Decision != nil && seen.Decision.Decision == agent.Restoring && !stuck, err
}

// Choose makes the lane's recipe go back to these snapshots and no others. A
// rollback stores that on the host as soon as it has the lock.
func (l *Lane) Choose(ctx context.Context, to []agent.Snapshot) {
	back := agent.WayBack(to)
	if root := rootOf(l.Recipe.Snapshots); root != nil && rootOf(to) == nil && (l.Trial() || l.putAway(ctx, *root)) {
		back = append(back, agent.Return(*root))
	}
	l.choose(back)
}

func (l *Lane) choose(back []agent.Operation) {
	trial := l.Trial()
	ops := slices.DeleteFunc(slices.Clone(l.Recipe.Operations), func(op agent.Operation) bool {
		return op.Op == agent.DoData || op.Op == agent.DoStart || op.Op == agent.DoReboot && !trial
	})
	ops = Compose(ops, WithBoot(back, l.Recipe.Before))
	l.chosen = !reflect.DeepEqual(ops, l.Recipe.Operations)
	l.Recipe.Operations = ops
}

// rootOf is the snapshot of the running root, nil if there is none.
func rootOf(list []agent.Snapshot) *agent.Snapshot {
	if i := slices.IndexFunc(list, func(s agent.Snapshot) bool { return s.Source == "/" }); i >= 0 {
		return &list[i]
	}
	return nil
}

// putAway tells whether something else is mounted at / than before the run. The
// host itself looks again, so a host that does not say counts as one.
func (l *Lane) putAway(ctx context.Context, root agent.Snapshot) bool {
	var d agent.Discovery
	err := l.Call(ctx, agent.OpDiscover, agent.DiscoverArgs{Paths: []string{"/"}}, &d)
	return err != nil || len(d.Volumes) != 1 || d.Volumes[0].UUID != root.ParentUUID
}

// WithBoot adds to a way back the boot that another root takes.
func WithBoot(back []agent.Operation, before agent.Facts) []agent.Operation {
	if slices.ContainsFunc(back, func(op agent.Operation) bool { return op.Data != nil && rootOf(op.Data.Snapshots) != nil }) {
		back = append(slices.Clip(back), agent.Operation{Op: agent.DoReboot, System: before.Boot.System, BootID: before.BootID})
	}
	return back
}

// Unasked is what of a way back is taken when nobody is asked. The root, and what is nested in it, goes
// back by a reboot: only where the runbook says `reboot: auto`.
func Unasked(back []agent.Operation, policy string, before agent.Facts) []agent.Operation {
	if policy == "auto" && before.Boot.System != "" {
		return back
	}
	var rest []agent.Snapshot
	for _, op := range back {
		if op.Data != nil {
			rest = append(rest, op.Data.Snapshots...)
		}
	}
	root := rootOf(rest)
	if root == nil {
		return back
	}
	in := *root
	return agent.WayBack(slices.DeleteFunc(rest, func(s agent.Snapshot) bool {
		return s.FSID == in.FSID && (s.Origin == in.Origin || strings.HasPrefix(s.Origin, in.Origin+"/"))
	}))
}

// Returns is the undo of a boot of the new system: that may put the root away.
func (l *Lane) Returns() []agent.Operation {
	root := rootOf(l.Recipe.Snapshots)
	if root == nil || l.GoesBack(*root) {
		return nil
	}
	return []agent.Operation{agent.Return(*root)}
}

// GoBackTo makes of the lane one that restores these snapshots and nothing else;
// the units that are declared for their sources, or for the nearest that these
// are nested in, stand still for it.
func (l *Lane) GoBackTo(to []agent.Snapshot, declared *runbooks.Snapshots) {
	for i := range to {
		to[i].Policy = Restore
		if declared == nil {
			continue
		}
		if s := agent.Nearest(declared.Subvolumes, to[i].Source); s != nil {
			to[i].Units = slices.Concat(s.Pause, s.Stop)
		}
	}
	l.Before = l.Seen
	l.Recipe = agent.Recipe{Host: l.Name, Written: time.Now().UTC(), Before: l.Seen, Snapshots: to}
	l.choose(agent.WayBack(to))
}

// RestoreCommand is what a person types to restore snapshots of a host.
func RestoreCommand(host string, uuids []string) string {
	cmd := "deployer snapshots restore " + host
	for _, uuid := range uuids {
		cmd += " " + uuid[:min(len(uuid), 8)] // as they are listed
	}
	return cmd
}

// Stocked refuses a rollback whose snapshots are not there any more, before it
// changes anything.
func (l *Lane) Stocked(ctx context.Context) error {
	var list []agent.Snapshot
	for _, s := range l.Recipe.Snapshots {
		if !l.GoesBack(s) {
			continue
		}
		if list == nil {
			if err := l.Call(ctx, agent.OpSnapshots, agent.DiscoverArgs{Foreign: true}, &list); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(list, func(o agent.Snapshot) bool { return o.UUID == s.UUID }) {
			return &Failure{Exit: ExitRefused, Host: l.Name, Err: fmt.Errorf("the snapshot that %s would go back to is not there any more: %s", s.Source, s.Path), Safe: "nothing was changed on any host",
				Hint: []string{"deployer rollback " + l.Recipe.Run + " --data keep --subvolume " + s.Source}}
		}
	}
	return nil
}

// ofData says what became of data: as what the replaced state is kept, and what
// stays because nobody was asked.
func (r *Runner) ofData(l *Lane, results []agent.Outcome) {
	l.became = nil
	for _, out := range results {
		if out.Op.Op == agent.DoData && out.State != "failed" {
			l.became = append(l.became, l.Name+": "+out.Message)
		}
	}
	for _, s := range l.Recipe.Snapshots {
		why := "on_rollback: ask"
		if s.Policy == Restore && r.Run.Undoes == "" {
			why = "it goes back by a reboot, and the runbook does not say reboot: auto"
		} else if s.Policy != Ask {
			continue
		}
		if !l.GoesBack(s) {
			l.became = append(l.became, fmt.Sprintf("%s: %s stays as the new system left it (%s); as before the run it is in %s", l.Name, s.Source, why, s.Path))
		}
	}
	for _, text := range l.became {
		_ = r.Log.Record(state.Record{Kind: state.Note, Host: l.Name, Text: strings.TrimPrefix(text, l.Name+": ")}, nil)
	}
}

package phases

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

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
		return op.Data != nil && slices.ContainsFunc(op.Data.Snapshots, func(o agent.Snapshot) bool { return o.UUID == s.UUID })
	})
}

// Choose makes the lane's recipe go back to these snapshots and no others. A
// rollback stores that on the host as soon as it has the lock.
func (l *Lane) Choose(to []agent.Snapshot) {
	ops := slices.DeleteFunc(slices.Clone(l.Recipe.Operations), func(op agent.Operation) bool { return op.Op == agent.DoData || op.Op == agent.DoStart })
	ops = Compose(ops, agent.WayBack(to))
	l.chosen = !reflect.DeepEqual(ops, l.Recipe.Operations)
	l.Recipe.Operations = ops
}

// GoBackTo makes of the lane one that restores these snapshots and nothing else.
func (l *Lane) GoBackTo(to []agent.Snapshot) {
	for i := range to {
		to[i].Policy = Restore
	}
	l.Before = l.Seen
	l.Recipe = agent.Recipe{Host: l.Name, Before: l.Seen, Snapshots: to}
	l.Choose(to)
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
		if s.Policy == Ask && !l.GoesBack(s) {
			l.became = append(l.became, fmt.Sprintf("%s: %s stays as the new system left it (on_rollback: ask); as before the run it is in %s", l.Name, s.Source, s.Path))
		}
	}
	for _, text := range l.became {
		_ = r.Log.Record(state.Record{Kind: state.Note, Host: l.Name, Text: strings.TrimPrefix(text, l.Name+": ")}, nil)
	}
}

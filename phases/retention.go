package phases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Kept is what retention says of one snapshot, and what became of it.
type Kept struct {
	agent.Snapshot
	Keep  bool   `json:"keep"`
	Spare bool   `json:"spare,omitempty"` // it goes as well while there is too little space
	Why   string `json:"why"`
	State string `json:"state,omitempty"` // freed, later (the space comes back later), gone, refused
}

// Retain decides what of a host's snapshots stays: the sets of the last good
// runs, those of other runs for some days, no more than so many, and whatever a
// run that is open may go back to. The age is that of the kernel's record,
// never mtime, which is the source's. It also names the good runs whose way
// back is no longer wanted.
func Retain(list []agent.Snapshot, lanes []agent.Lane, keep runbooks.Keep, now time.Time) (out []Kept, release []string) {
	ended, goods := map[string]string{}, 0
	rank := map[string]int{}
	for _, l := range slices.SortedFunc(slices.Values(lanes), func(a, b agent.Lane) int { return cmp.Compare(b.Run, a.Run) }) {
		switch {
		case l.Open():
			ended[l.Run] = "open"
		case l.Closing != nil:
			ended[l.Run] = l.Closing.Outcome
		}
		if ended[l.Run] == string(state.Committed) {
			if goods++; goods > keep.GoodRuns {
				release = append(release, l.Run)
			}
			rank[l.Run] = goods
		}
	}
	newest := slices.SortedStableFunc(slices.Values(list), func(a, b agent.Snapshot) int { return b.Created.Compare(a.Created) })
	sets := map[string]bool{}
	for _, s := range newest {
		k := Kept{Snapshot: s}
		days := int(now.Sub(s.Created).Hours() / 24)
		switch how := ended[s.Run]; {
		case !s.Recorded:
			k.Keep, k.Why = true, "this host has no record that deployer made it"
		case how == "open":
			k.Keep, k.Why = true, "run "+s.Run+" may still go back to it"
		case how == agent.Released: // an earlier prune could not delete it
			k.Why = "run " + s.Run + " is not undone any more"
		case rank[s.Run] == 1:
			k.Keep, k.Why = true, "of the last good run"
		case rank[s.Run] > 0 && rank[s.Run] <= keep.GoodRuns:
			k.Keep, k.Spare, k.Why = true, true, fmt.Sprintf("of one of the last %d good runs", keep.GoodRuns)
		case rank[s.Run] > 0:
			k.Why = fmt.Sprintf("%d good runs are newer", rank[s.Run]-1)
		case days < keep.FailedDays:
			k.Keep, k.Spare, k.Why = true, !s.Replaced, fmt.Sprintf("%d days old, of %d", days, keep.FailedDays) // what was replaced is nowhere else
		default:
			k.Why = fmt.Sprintf("%d days old, %d are kept", days, keep.FailedDays)
		}
		if k.Keep {
			sets[s.Run] = true
		}
		if k.Spare && len(sets) > keep.Most {
			k.Keep, k.Spare, k.Why = false, false, fmt.Sprintf("more than %d sets are kept", keep.Most)
		}
		out = append(out, k)
	}
	slices.Reverse(out)
	return out, release
}

// Retention is the project's, with what it does not say.
func (r *Run) Retention() runbooks.Keep {
	keep := runbooks.Keep{}
	if s := r.Project.Snapshots; s != nil && s.Keep != nil {
		keep = *s.Keep
	}
	return runbooks.Keep{GoodRuns: cmp.Or(keep.GoodRuns, 5), FailedDays: cmp.Or(keep.FailedDays, 30), Most: cmp.Or(keep.Most, 100)}
}

// freedWithin is how long a prune waits for the space of what it deleted.
const freedWithin = 60.0 // seconds

// Prune deletes what retention lets go of on a host; a dry one only says so. A
// run of which anything goes is not undone any more, which is written first.
// The host's agent has the last word: it knows what is mounted, held or sent.
func (r *Run) Prune(ctx context.Context, l *Lane, dry bool) ([]Kept, error) {
	var list []agent.Snapshot
	var lanes []agent.Lane
	if err := l.Call(ctx, agent.OpSnapshots, agent.DiscoverArgs{}, &list); err != nil {
		return nil, err
	}
	if err := l.Call(ctx, agent.OpLanes, nil, &lanes); err != nil {
		return nil, err
	}
	verdicts, release := Retain(list, lanes, r.Retention(), time.Now())
	if dry {
		if err := r.spare(ctx, l, verdicts, nil); err != nil {
			return verdicts, err
		}
		return verdicts, l.drop(ctx, verdicts, agent.OpDeleteDry)
	}
	good := map[string]bool{}
	for _, lane := range lanes {
		good[lane.Run] = !lane.Open() && lane.Closing != nil && lane.Closing.Outcome == string(state.Committed)
	}
	drop := func(ctx context.Context, verdicts []Kept) error {
		for _, k := range verdicts {
			if !k.Keep && k.State == "" {
				release = append(release, k.Run)
			}
		}
		for _, run := range release {
			if !good[run] {
				continue
			}
			if err := l.Call(ctx, agent.OpClose, agent.Closing{Run: run, Outcome: agent.Released}, nil); err != nil {
				return err
			}
			good[run] = false
		}
		return l.drop(ctx, verdicts, agent.OpDelete)
	}
	return verdicts, r.Alone(ctx, l, func() error {
		if err := drop(ctx, verdicts); err != nil {
			return err
		}
		return r.spare(ctx, l, verdicts, drop)
	})
}

// drop deletes what is not kept and has no state yet, or finds what would stay.
func (l *Lane) drop(ctx context.Context, verdicts []Kept, op string) error {
	args, at := agent.DeleteArgs{Wait: freedWithin}, map[string]*Kept{}
	for i := range verdicts {
		if k := &verdicts[i]; !k.Keep && k.State == "" {
			args.Snapshots, at[k.UUID] = append(args.Snapshots, k.Snapshot), k
		}
	}
	if len(args.Snapshots) == 0 {
		return nil
	}
	var deleted []agent.Deleted
	err := l.Call(ctx, op, args, &deleted)
	for _, d := range deleted {
		if k := at[d.UUID]; k != nil {
			k.State, k.Why = d.State, cmp.Or(d.Why, k.Why)
		}
	}
	return err
}

// spare lets go of more, set by set from the oldest on, while a file system has
// less space than a run needs. Without drop it says of what that is true. Where
// the cleaner still works on what was deleted, nothing tells whether that is
// enough: there nothing more goes.
func (r *Run) spare(ctx context.Context, l *Lane, verdicts []Kept, drop func(context.Context, []Kept) error) error {
	for {
		short, err := l.short(ctx)
		if err != nil {
			return err
		}
		waits := map[string]bool{}
		for i := range verdicts {
			if k := &verdicts[i]; k.State == "later" && short[k.FSID] != "" {
				waits[k.FSID], k.Why = true, short[k.FSID]+": run prune again once this is freed"
			}
		}
		i := slices.IndexFunc(verdicts, func(k Kept) bool { return k.Keep && k.Spare && short[k.FSID] != "" && !waits[k.FSID] })
		if i < 0 {
			return nil
		}
		of := verdicts[i]
		for i := range verdicts {
			if k := &verdicts[i]; k.Keep && k.Spare && k.FSID == of.FSID && (drop == nil || k.Run == of.Run) {
				k.Keep, k.Spare, k.Why = false, false, short[of.FSID]
			}
		}
		if drop != nil {
			if err := drop(ctx, verdicts); err != nil {
				return err
			}
		}
	}
}

// short says of file systems that have too little space that it is so.
func (l *Lane) short(ctx context.Context) (map[string]string, error) {
	var d agent.Discovery
	if err := l.Call(ctx, agent.OpDiscover, agent.DiscoverArgs{}, &d); err != nil {
		return nil, err
	}
	short := map[string]string{}
	for _, f := range d.Filesystems {
		if lacks := lacking(f, 0); len(lacks) > 0 {
			short[f.FSID] = lacks[0]
		}
	}
	return short, nil
}

// Alone does something to a host under its lock, outside of any run's lane.
func (r *Run) Alone(ctx context.Context, l *Lane, do func() error) error {
	if err := l.register(ctx, agent.LockArgs{Run: r.ID, Owner: r.Owner, Reason: r.Runbook.Name}); err != nil {
		return err
	}
	err := do()
	l.Locked = false
	return cmp.Or(err, l.unlock(context.WithoutCancel(ctx), r.ID, r.Owner, r.Runbook.Name+" is done"))
}

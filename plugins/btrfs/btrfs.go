// Package btrfs is the snapshot provider that ships with deployer. It runs on
// the controller and touches no file system: it asks the agent what is there
// (btrfs.discover), says in words what cannot be taken, and has one read-only
// set taken (btrfs.snapshot): all of it or nothing, what is nested too, in the
// folder that deployer.yaml names, else where the agent finds best. Where
// subvolumes name units to pause, all of them stand still for the whole set; where
// one names units to stop, all of them are stopped.
//
// The recipe goes back to the snapshots of subvolumes with the policy restore,
// all at once, before and after what ran then is activated.
package btrfs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/proto"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Plugin is what `plugin-serve btrfs` serves.
func Plugin() sdk.Plugin {
	p := &provider{}
	return sdk.Plugin{
		Name: "btrfs", Version: "1.0.0", Snapshotter: p,
		Operations: []string{agent.OpDiscover, agent.OpSnapshot},
		Configure: func(_ context.Context, _ json.RawMessage, core *sdk.Core) error {
			p.core = core
			return nil
		},
	}
}

type provider struct{ core *sdk.Core }

// Plan finds what Create would stumble over, and what its recipe would.
func (p *provider) Plan(ctx context.Context, req sdk.SnapshotRequest) (plan sdk.SnapshotPlan, err error) {
	var d agent.Discovery
	if err := p.core.Operate(ctx, req.HostRef, agent.OpDiscover, agent.DiscoverArgs{Paths: setOf(req).Paths}, &d); err != nil {
		return plan, fmt.Errorf("cannot look at the subvolumes: %w", err)
	}
	for _, v := range d.Volumes {
		if v.Problem != "" {
			plan.Problems = append(plan.Problems, problem(v))
		} else if cmp.Or(declared(req, v.Path).OnRollback, "keep") != "keep" {
			plan.Problems = append(plan.Problems, unrestorable(v)...)
		}
	}
	return plan, nil
}

func problem(v agent.Volume) string {
	switch {
	case v.Btrfs && !v.Root:
		return fmt.Sprintf("%s is a folder inside the subvolume %q, not a subvolume of its own: declare that one, or make it one", v.Path, "/"+v.Name)
	case !v.Btrfs && v.FS != "" && v.FS != "btrfs":
		return fmt.Sprintf("%s (mounted there is %s)", v.Problem, v.FS)
	}
	return v.Problem
}

// unrestorable is why a rollback would fail, said before anything is changed.
func unrestorable(v agent.Volume) (why []string) {
	add := func(cond bool, format string, args ...any) {
		if cond {
			why = append(why, v.Path+" cannot be restored: "+fmt.Sprintf(format, args...))
		}
	}
	add(v.Own, "deployer's folder on the host lies in it: make that a subvolume of its own")
	add(v.Name == "", "it is the top level, which has no name that could be exchanged: use on_rollback: keep")
	add(v.Default, "it is the default subvolume; btrfs subvolume set-default 5 %s", v.Path)
	add(len(v.ByID) > 0, "%s mounts it by subvolid=: use subvol=/%s there", strings.Join(v.ByID, ", "), v.Name)
	return why
}

// Create can be called again: the agent answers with the set of this run and
// stamp that it has taken.
func (p *provider) Create(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotResult, error) {
	args := setOf(req)
	var set agent.SnapshotSet
	if err := p.core.Operate(ctx, req.HostRef, agent.OpSnapshot, args, &set); err != nil {
		return sdk.SnapshotResult{}, fmt.Errorf("cannot snapshot %s: %w", strings.Join(args.Paths, ", "), err)
	}
	var back []agent.Snapshot
	for i, s := range set.Snapshots {
		of := declared(req, s.Source)
		set.Snapshots[i].Policy, set.Snapshots[i].Units = cmp.Or(of.OnRollback, "keep"), slices.Concat(of.Pause, of.Stop)
		if of.OnRollback == "restore" {
			back = append(back, set.Snapshots[i])
		}
	}
	return sdk.SnapshotResult{Set: set, Recipe: agent.WayBack(back)}, nil
}

func setOf(req sdk.SnapshotRequest) agent.SnapshotArgs {
	args := agent.SnapshotArgs{Run: req.Run, Dir: req.Dir, Stamp: req.Stamp, Generation: req.Generation}
	for _, s := range req.Subvolumes {
		args.Paths, args.Units = append(args.Paths, path.Clean(s.Path)), append(args.Units, s.Pause...)
		if len(s.Stop) > 0 { // of one set, all or none are stopped: what was stopped writes no more
			args.Consistency, args.Units = agent.Stopped, append(args.Units, s.Stop...)
		}
	}
	slices.Sort(args.Units)
	if args.Units = slices.Compact(args.Units); len(args.Units) > 0 {
		args.Consistency = cmp.Or(args.Consistency, agent.Paused)
	}
	return args
}

// declared is what deployer.yaml says of a subvolume, or of the nearest that it
// is nested in.
func declared(req sdk.SnapshotRequest, source string) proto.Subvolume {
	by := map[string]proto.Subvolume{}
	for _, s := range req.Subvolumes {
		by[s.Path] = s
	}
	return agent.Nearest(by, source)
}

// Package btrfs is the snapshot provider that ships with deployer. It runs on
// the controller and touches no file system: it asks the agent what is there
// (btrfs.discover), says in words what cannot be taken and what a snapshot
// would leave out, and has one read-only set taken (btrfs.snapshot): all of it
// or nothing, in the folder that deployer.yaml names, else where the agent
// finds best.
//
// The recipe is empty: with the policy keep a rollback leaves data as it is.
package btrfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Plugin is what `plugin-serve btrfs` serves.
func Plugin() sdk.Plugin {
	p := &provider{}
	return sdk.Plugin{
		Name: "btrfs", Version: "1.0.0", Snapshotter: p,
		Operations: []string{agent.OpDiscover, agent.OpSnapshot, agent.OpSnapshots},
		Configure: func(_ context.Context, _ json.RawMessage, core *sdk.Core) error {
			p.core = core
			return nil
		},
	}
}

type provider struct{ core *sdk.Core }

func (p *provider) Plan(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotPlan, error) {
	plan, _, err := p.look(ctx, req)
	return plan, err
}

// look finds the subvolumes of a request, in its order.
func (p *provider) look(ctx context.Context, req sdk.SnapshotRequest) (plan sdk.SnapshotPlan, found []agent.Volume, err error) {
	var d agent.Discovery
	paths := pathsOf(req)
	if err := p.core.Operate(ctx, req.HostRef, agent.OpDiscover, agent.DiscoverArgs{Paths: paths}, &d); err != nil {
		return plan, nil, fmt.Errorf("cannot look at the subvolumes: %w", err)
	}
	for _, s := range req.Subvolumes {
		plan.Problems = append(plan.Problems, unbuilt(s)...)
	}
	for _, v := range d.Volumes {
		if v.Problem != "" {
			plan.Problems = append(plan.Problems, problem(v))
		}
		for _, nested := range v.Nested {
			if !slices.Contains(paths, nested) {
				plan.NotCovered = append(plan.NotCovered, fmt.Sprintf("%s: a subvolume below %s, empty in its snapshot", nested, v.Path))
			}
		}
	}
	return plan, d.Volumes, nil
}

// unbuilt refuses by name what this version does not do, rather than ignore it.
func unbuilt(s sdk.Subvolume) (lines []string) {
	if s.OnRollback != "" && s.OnRollback != "keep" {
		lines = append(lines, fmt.Sprintf("%s: on_rollback %q is not built in this version: use keep", s.Path, s.OnRollback))
	}
	if len(s.Pause) > 0 {
		lines = append(lines, fmt.Sprintf("%s: pause (%s) is not built in this version: leave it out", s.Path, strings.Join(s.Pause, ", ")))
	}
	return lines
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

// Create answers with the set that an earlier try has taken, if there is one.
func (p *provider) Create(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotResult, error) {
	plan, volumes, err := p.look(ctx, req)
	if err == nil && len(plan.Problems) > 0 {
		err = &sdk.Error{Code: "invalid", Message: "cannot snapshot: " + plan.Problems[0], Hint: plan.Problems[1:]}
	}
	if err != nil {
		return sdk.SnapshotResult{}, err
	}
	args := agent.SnapshotArgs{Run: req.Run, Dir: req.Dir, Stamp: req.Stamp, Paths: pathsOf(req)}
	var set agent.SnapshotSet
	err = p.core.Operate(ctx, req.HostRef, agent.OpSnapshot, args, &set)
	var failed *sdk.Error
	if errors.As(err, &failed) && failed.Code == "exists" {
		set, err = p.earlier(ctx, req, volumes, err)
	}
	if err != nil {
		return sdk.SnapshotResult{}, fmt.Errorf("cannot snapshot %s: %w", strings.Join(args.Paths, ", "), err)
	}
	return sdk.SnapshotResult{Set: set}, nil
}

// earlier finds all of a set that is there: the agent takes sets whole.
func (p *provider) earlier(ctx context.Context, req sdk.SnapshotRequest, volumes []agent.Volume, exists error) (set agent.SnapshotSet, err error) {
	paths := pathsOf(req)
	if req.Dir != "" {
		paths = append(paths, req.Dir)
	}
	var all []agent.Snapshot
	if err := p.core.Operate(ctx, req.HostRef, agent.OpSnapshots, agent.DiscoverArgs{Paths: paths}, &all); err != nil {
		return set, err
	}
	for _, v := range volumes {
		i := slices.IndexFunc(all, func(s agent.Snapshot) bool {
			return s.ParentUUID == v.UUID && s.Run == req.Run && strings.HasPrefix(path.Base(s.Path), req.Stamp)
		})
		if i < 0 {
			return set, exists
		}
		all[i].Source = v.Path
		set.Snapshots = append(set.Snapshots, all[i])
	}
	return set, nil
}

func pathsOf(req sdk.SnapshotRequest) (paths []string) {
	for _, s := range req.Subvolumes {
		paths = append(paths, path.Clean(s.Path))
	}
	return paths
}

package plugintest_test

import (
	"cmp"
	"context"
	"encoding/json"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/plugintest"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// other is a second provider, so that the protocol is not Btrfs's alone: it goes
// back to each snapshot by an operation of its own, and pauses by name.
type other struct{ core *sdk.Core }

func (o *other) Plan(ctx context.Context, req sdk.SnapshotRequest) (plan sdk.SnapshotPlan, err error) {
	for _, s := range req.Subvolumes {
		var d agent.Discovery
		if err := o.core.Operate(ctx, req.HostRef, agent.OpDiscover, agent.DiscoverArgs{Paths: []string{s.Path}}, &d); err != nil {
			return plan, err
		}
		if !d.Volumes[0].Root {
			plan.Problems = append(plan.Problems, s.Path+" is no data set")
		}
	}
	return plan, nil
}

func (o *other) Create(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotResult, error) {
	args, restore := agent.SnapshotArgs{Run: req.Run, Stamp: req.Stamp}, map[string]bool{}
	for _, s := range req.Subvolumes {
		args.Paths, restore[s.Path] = append(args.Paths, s.Path), s.OnRollback == "restore"
		if len(s.Pause) > 0 {
			args.Consistency, args.Units = cmp.Or(args.Consistency, agent.Paused), append(args.Units, s.Pause...)
		}
		if len(s.Stop) > 0 {
			args.Consistency, args.Units = agent.Stopped, append(args.Units, s.Stop...)
		}
	}
	var set agent.SnapshotSet
	err := o.core.Operate(ctx, req.HostRef, agent.OpSnapshot, args, &set)
	var recipe []agent.Operation
	for _, s := range set.Snapshots {
		if restore[s.Source] {
			recipe = append(recipe, agent.Operation{Op: agent.DoData, Data: &agent.Data{Snapshots: []agent.Snapshot{s}}})
		}
	}
	return sdk.SnapshotResult{Set: set, Recipe: recipe}, err
}

func TestAnotherProvider(t *testing.T) {
	plugin := func() sdk.Plugin {
		o := &other{}
		return sdk.Plugin{Name: "other", Version: "0.1", Snapshotter: o, Operations: []string{agent.OpDiscover, agent.OpSnapshot},
			Configure: func(_ context.Context, _ json.RawMessage, core *sdk.Core) error { o.core = core; return nil }}
	}
	machine := func() *plugintest.Host {
		return &plugintest.Host{Volumes: []agent.Volume{{Path: "/tank/a", Root: true, FS: "zfs"}, {Path: "/tank/b", Root: true, FS: "zfs"}}}
	}
	plugintest.Snapshotter(t, plugin, machine, host.Subvolume{Path: "/tank/a", OnRollback: "keep"}, host.Subvolume{Path: "/tank/b", OnRollback: "keep"})
}

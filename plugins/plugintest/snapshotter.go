package plugintest

import (
	"slices"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Snapshotter runs the suite for providers of snapshots. newHost makes a
// machine on which every subject can be snapshotted into the folder that the plugin chooses.
func Snapshotter(t *testing.T, newPlugin func() sdk.Plugin, newHost func() *Host, subjects ...host.Subvolume) {
	open := func(t *testing.T) (host.Snapshotter, *Host) {
		h := newHost()
		p := connected(t, newPlugin(), nil, host.Services{Operator: h, Writes: Writes})
		described(t, p)
		s, ok := p.Snapshotter()
		if !ok {
			t.Fatal("it does not advertise the capability snapshotter")
		}
		return s, h
	}
	request := host.SnapshotRequest{Run: "run-1", HostRef: "web-1", OperationID: "op-1", Stamp: "20260301T020000Z", Subvolumes: subjects}

	t.Run("looks without changing anything", func(t *testing.T) {
		s, h := open(t)
		if _, err := s.Probe(t.Context(), "web-1"); err != nil {
			t.Errorf("probe: %v", err)
		}
		plan, err := s.Plan(t.Context(), request)
		if err != nil || len(plan.Problems) > 0 {
			t.Errorf("plan: %v %q", err, plan.Problems)
		}
		for _, v := range subjects {
			if plan.Dirs[v.Path] == "" {
				t.Errorf("the plan does not say where the snapshot of %s goes", v.Path)
			}
		}
		unchanged(t, h)
	})
	t.Run("dry run changes nothing", func(t *testing.T) {
		s, h := open(t)
		dry := request
		dry.DryRun = true
		if _, err := s.Create(t.Context(), dry); err != nil {
			t.Errorf("create: %v", err)
		}
		unchanged(t, h)
	})
	t.Run("takes what was declared, once", func(t *testing.T) {
		s, h := open(t)
		first := takes(t, s, h, request)
		again := takes(t, s, h, request)
		if !slices.Equal(ids(first), ids(again)) {
			t.Errorf("the same operation took %v, then %v", ids(first), ids(again))
		}
	})
	t.Run("says what it cannot take, and takes nothing", func(t *testing.T) {
		s, h := open(t)
		wrong := request
		wrong.Subvolumes = append(slices.Clone(subjects), host.Subvolume{Path: "/not/there"})
		plan, err := s.Plan(t.Context(), wrong)
		if err != nil || len(plan.Problems) == 0 {
			t.Errorf("plan of a path that is missing: %v, problems %q", err, plan.Problems)
		}
		if _, err := s.Create(t.Context(), wrong); err == nil {
			t.Error("create of a path that is missing succeeded")
		}
		unchanged(t, h)
	})
}

// takes checks a result against the host: one read-only snapshot per subject.
func takes(t *testing.T, s host.Snapshotter, h *Host, req host.SnapshotRequest) []agent.Snapshot {
	t.Helper()
	result, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if result.Consistency == "" {
		t.Error("it does not say which consistency it achieved")
	}
	if got, there := ids(result.Set.Snapshots), ids(h.Taken()); !slices.Equal(got, there) {
		t.Errorf("it reports %v, on the host are %v", got, there)
	}
	for _, v := range req.Subvolumes {
		i := slices.IndexFunc(result.Set.Snapshots, func(s agent.Snapshot) bool { return s.Source == v.Path })
		if i < 0 || !result.Set.Snapshots[i].ReadOnly || result.Set.Snapshots[i].Run != req.Run {
			t.Errorf("there is no read-only snapshot of %s for the run", v.Path)
		}
	}
	return result.Set.Snapshots
}

func unchanged(t *testing.T, h *Host) {
	t.Helper()
	if taken := h.Taken(); len(taken) > 0 {
		t.Errorf("it took %v", ids(taken))
	}
	for _, op := range h.Asked() {
		if Writes(op) {
			t.Errorf("it asked for %s, which writes", op)
		}
	}
}

func ids(snapshots []agent.Snapshot) []uint64 {
	var list []uint64
	for _, s := range snapshots {
		list = append(list, s.ID)
	}
	slices.Sort(list)
	return list
}

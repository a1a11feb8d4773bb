package plugintest

import (
	"slices"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/proto"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Snapshotter runs the suite for providers of snapshots. newHost makes a
// machine on which every subvolume can be snapshotted.
func Snapshotter(t *testing.T, newPlugin func() sdk.Plugin, newHost func() *Host, volumes ...host.Subvolume) {
	open := func(t *testing.T) (*host.Plugin, *Host) {
		h := newHost()
		return connected(t, newPlugin(), nil, host.Services{Operator: h, Writes: agent.Writes}, proto.Snapshotter), h
	}
	request := host.SnapshotRequest{Run: "run-1", HostRef: "web-1", OperationID: "op-1", Stamp: "20260301T020000Z", Subvolumes: volumes}

	t.Run("plans without changing anything", func(t *testing.T) {
		s, h := open(t)
		if plan, err := s.Plan(t.Context(), request); err != nil || len(plan.Problems) > 0 {
			t.Errorf("plan: %v %q", err, plan.Problems)
		}
		unchanged(t, h)
	})
	t.Run("takes what was declared, once", func(t *testing.T) {
		s, h := open(t)
		first := takes(t, s, h, request)
		if again := takes(t, s, h, request); !slices.Equal(first, again) {
			t.Errorf("the same operation took %v, then %v", first, again)
		}
	})
	t.Run("its recipe goes back to what is to be restored, and to nothing else", func(t *testing.T) {
		s, h := open(t)
		mixed := request
		mixed.Subvolumes = slices.Clone(volumes)
		mixed.Subvolumes[0].OnRollback = "restore"
		takes(t, s, h, mixed)
		result, err := s.Create(t.Context(), mixed)
		if err != nil {
			t.Fatal(err)
		}
		var back []string
		for _, op := range result.Recipe {
			if op.Data != nil {
				for _, s := range op.Data.Snapshots {
					back = append(back, s.Source)
				}
			}
		}
		if !slices.Contains(back, volumes[0].Path) || slices.ContainsFunc(volumes[1:], func(v host.Subvolume) bool { return slices.Contains(back, v.Path) }) {
			t.Errorf("only %s is to be restored, the recipe restores %v", volumes[0].Path, back)
		}
		if kept, err := s.Create(t.Context(), request); err != nil || len(kept.Recipe) > 0 {
			t.Errorf("all is to be kept, the recipe is %v (%v)", kept.Recipe, err)
		}
	})
	t.Run("says how consistent the set is", func(t *testing.T) {
		s, _ := open(t)
		paused := request
		paused.Subvolumes = slices.Clone(volumes)
		paused.Stamp = "20260301T030000Z"
		paused.Subvolumes[len(volumes)-1].Pause = []string{"db.service"}
		stopped := paused
		stopped.Subvolumes = slices.Clone(paused.Subvolumes)
		stopped.Stamp = "20260301T040000Z"
		stopped.Subvolumes[0].Stop = []string{"app.service"}
		for _, c := range []struct {
			req  host.SnapshotRequest
			want string
		}{{request, agent.Single}, {paused, agent.Paused}, {stopped, agent.Stopped}} {
			if result, err := s.Create(t.Context(), c.req); err != nil || result.Set.Consistency != c.want {
				t.Errorf("%v: %q, want %q", err, result.Set.Consistency, c.want)
			}
		}
	})
	t.Run("says what it cannot take, and takes nothing", func(t *testing.T) {
		s, h := open(t)
		wrong := request
		wrong.Subvolumes = append(slices.Clone(volumes), host.Subvolume{Path: "/not/there"})
		if plan, err := s.Plan(t.Context(), wrong); err != nil || len(plan.Problems) == 0 {
			t.Errorf("plan of a path that is missing: %v, problems %q", err, plan.Problems)
		}
		unchanged(t, h)
		if _, err := s.Create(t.Context(), wrong); err == nil {
			t.Error("create of a path that is missing succeeded")
		}
		if taken := h.Taken(); len(taken) > 0 {
			t.Errorf("it took %v", taken)
		}
	})
}

// takes checks a result against the host: one read-only snapshot per subvolume.
func takes(t *testing.T, s *host.Plugin, h *Host, req host.SnapshotRequest) (ids []uint64) {
	t.Helper()
	result, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	for _, v := range req.Subvolumes {
		i := slices.IndexFunc(result.Set.Snapshots, func(s agent.Snapshot) bool { return s.Source == v.Path })
		if i < 0 || !result.Set.Snapshots[i].ReadOnly || result.Set.Snapshots[i].Run != req.Run {
			t.Fatalf("there is no read-only snapshot of %s for the run", v.Path)
		}
		ids = append(ids, result.Set.Snapshots[i].ID)
	}
	if there := h.Taken(); len(there) != len(result.Set.Snapshots) { // what is nested, too
		t.Errorf("it reports %v, on the host are %v", result.Set.Snapshots, there)
	}
	return ids
}

func unchanged(t *testing.T, h *Host) {
	t.Helper()
	if taken := h.Taken(); len(taken) > 0 {
		t.Errorf("it took %v", taken)
	}
	if i := slices.IndexFunc(h.Asked(), agent.Writes); i >= 0 {
		t.Errorf("it asked for %s, which writes", h.Asked()[i])
	}
}

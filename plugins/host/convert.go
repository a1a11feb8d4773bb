package host

import (
	"encoding/json"
	"fmt"

	"github.com/hbohlen/deployer/phases/agent"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

func subjects(volumes []Subvolume) []*pluginv1.Subject {
	var to []*pluginv1.Subject
	for _, v := range volumes {
		to = append(to, &pluginv1.Subject{Path: v.Path, OnRollback: v.OnRollback, Pause: v.Pause})
	}
	return to
}

func planOf(resp *pluginv1.PlanResponse) SnapshotPlan {
	plan := SnapshotPlan{Problems: resp.GetProblems(), NotCovered: resp.GetNotCovered(), Dirs: resp.GetDirs()}
	for _, v := range resp.GetVolumes() {
		plan.Volumes = append(plan.Volumes, volumeOf(v))
	}
	return plan
}

func volumeOf(v *pluginv1.Volume) agent.Volume {
	return agent.Volume{
		Path: v.GetPath(), Btrfs: v.GetBtrfs(), Root: v.GetRoot(), ID: v.GetId(), UUID: v.GetUuid(), Name: v.GetName(),
		ReadOnly: v.GetReadOnly(), Nested: v.GetNested(), FS: v.GetFs(), FSID: v.GetFsid(), Free: v.GetFree(), Problem: v.GetProblem(),
	}
}

// resultOf refuses a recipe that is not made of the agent's operations: it
// will be run without anybody who could ask.
func resultOf(from *pluginv1.CreateResult) (SnapshotResult, error) {
	to := SnapshotResult{Consistency: from.GetConsistency()}
	for _, s := range from.GetSnapshots() {
		to.Set.Snapshots = append(to.Set.Snapshots, snapshotOf(s))
	}
	for i, raw := range from.GetRecipe() {
		var op agent.Operation
		if err := json.Unmarshal(raw, &op); err != nil || op.Op == "" {
			return SnapshotResult{}, fmt.Errorf("entry %d of its recipe is no typed operation: %.80q", i+1, raw)
		}
		to.Recipe = append(to.Recipe, op)
	}
	return to, nil
}

func snapshotOf(s *pluginv1.Snapshot) agent.Snapshot {
	return agent.Snapshot{
		Source: s.GetSource(), Path: s.GetPath(), ID: s.GetId(), UUID: s.GetUuid(), ParentUUID: s.GetParentUuid(),
		ReadOnly: s.GetReadOnly(), Run: s.GetRun(), Created: s.GetCreated().AsTime(),
	}
}

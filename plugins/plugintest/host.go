package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// Host is a machine as its agent would show it. Set its fields before use.
type Host struct {
	Volumes []agent.Volume // mounted subvolumes, and other file systems
	Fail    func(op string) error

	mu    sync.Mutex
	asked []string
	taken []agent.Snapshot
}

// Writes tells which of the operations that Host knows change it.
func Writes(op string) bool { return op != agent.OpDiscover && op != agent.OpSnapshots }

// Asked is the operations that were asked for, in their order.
func (h *Host) Asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

// Taken is the snapshots that are there.
func (h *Host) Taken() []agent.Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.taken)
}

// Operate answers as the agent does.
func (h *Host) Operate(_ context.Context, _, op string, args json.RawMessage) (json.RawMessage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, op)
	if h.Fail != nil {
		if err := h.Fail(op); err != nil {
			return nil, err
		}
	}
	switch op {
	case agent.OpDiscover:
		return answer(args, h.discover)
	case agent.OpSnapshot:
		return answer(args, h.snapshot)
	case agent.OpSnapshots:
		return answer(args, func(agent.DiscoverArgs) ([]agent.Snapshot, error) { return h.taken, nil })
	}
	return nil, &agent.Error{Code: "invalid", Message: "this host knows no operation " + op}
}

func answer[A, R any](raw json.RawMessage, do func(A) (R, error)) (json.RawMessage, error) {
	var args A
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, err
	}
	result, err := do(args)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func (h *Host) discover(args agent.DiscoverArgs) (agent.Discovery, error) {
	var d agent.Discovery
	if len(args.Paths) == 0 {
		d.Volumes = h.Volumes
	}
	for _, at := range args.Paths {
		d.Volumes = append(d.Volumes, h.at(at))
	}
	return d, nil
}

// at is the volume that a path is; else it is missing on what is mounted
// above it: Host has no folders but those in Volumes.
func (h *Host) at(at string) agent.Volume {
	missing := agent.Volume{Path: at, Problem: at + " does not exist"}
	for above := at; ; above = path.Dir(above) {
		for _, v := range h.Volumes {
			if v.Path == at {
				return v
			}
			if v.Path == above {
				missing.FS = v.FS
				return missing
			}
		}
		if above == path.Dir(above) {
			return missing
		}
	}
}

func (h *Host) snapshot(args agent.SnapshotArgs) (agent.SnapshotSet, error) {
	var set agent.SnapshotSet
	for _, at := range args.Paths {
		v := h.at(at)
		if !v.Root {
			return set, &agent.Error{Code: "not-btrfs", Message: at + " is no subvolume"}
		}
		name := strings.ReplaceAll(strings.Trim(at, "/"), "/", "-")
		s := agent.Snapshot{
			Source: at, Path: path.Join(args.Dir, args.Stamp+"."+args.Run+"."+name), ID: uint64(1000 + len(h.taken) + len(set.Snapshots)),
			ParentUUID: v.UUID, ReadOnly: true, Run: args.Run, Created: time.Now().UTC(),
		}
		s.UUID = fmt.Sprintf("snapshot-%d", s.ID)
		if slices.ContainsFunc(h.taken, func(o agent.Snapshot) bool { return o.Path == s.Path }) {
			return agent.SnapshotSet{}, &agent.Error{Code: "exists", Message: s.Path + " is there already"}
		}
		set.Snapshots = append(set.Snapshots, s)
	}
	h.taken = append(h.taken, set.Snapshots...)
	return set, nil
}

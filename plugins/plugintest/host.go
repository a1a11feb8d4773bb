package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/hbohlen/deployer/phases/agent"
)

// Host is a machine with Btrfs as its agent would show it: it answers
// btrfs.discover and btrfs.snapshot, and keeps what was taken.
type Host struct {
	Volumes []agent.Volume // all there is; set it before use

	mu    sync.Mutex
	asked []string
	taken []agent.Snapshot
}

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
func (h *Host) Operate(_ context.Context, _, op string, raw json.RawMessage) (json.RawMessage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, op)
	var args agent.SnapshotArgs // DiscoverArgs are some of these
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, err
	}
	switch op {
	case agent.OpDiscover:
		var d agent.Discovery
		for _, at := range args.Paths {
			d.Volumes = append(d.Volumes, h.at(at))
		}
		return json.Marshal(d)
	case agent.OpSnapshot:
		set, err := h.snapshot(args)
		if err != nil {
			return nil, err
		}
		return json.Marshal(set)
	}
	return nil, &agent.Error{Code: "invalid", Message: "this host knows no operation " + op}
}

func (h *Host) at(at string) agent.Volume {
	for _, v := range h.Volumes {
		if v.Path == at {
			return v
		}
	}
	return agent.Volume{Path: at, Problem: at + " does not exist"}
}

// snapshot answers with what is there of the same run and stamp, and takes what
// is nested as well.
func (h *Host) snapshot(args agent.SnapshotArgs) (set agent.SnapshotSet, err error) {
	set.Consistency = cmp.Or(args.Consistency, agent.Single)
	paths := slices.Clone(args.Paths)
	for _, at := range args.Paths {
		v := h.at(at)
		if !v.Root {
			return set, &agent.Error{Code: "not-btrfs", Message: at + " is no subvolume"}
		}
		paths = append(paths, v.Nested...)
	}
	slices.Sort(paths)
	for _, at := range slices.Compact(paths) {
		name, id := args.Stamp+"-"+args.Run+strings.ReplaceAll(at, "/", "-"), uint64(1000+len(h.taken))
		s := agent.Snapshot{Source: at, Path: path.Join("/.snapshots", args.Dir, name), ID: id, UUID: fmt.Sprint(id), ParentUUID: h.at(at).UUID, ReadOnly: true, Run: args.Run}
		i := slices.IndexFunc(h.taken, func(o agent.Snapshot) bool { return o.Path == s.Path })
		if i < 0 {
			i, h.taken = len(h.taken), append(h.taken, s)
		}
		set.Snapshots = append(set.Snapshots, h.taken[i])
	}
	return set, nil
}

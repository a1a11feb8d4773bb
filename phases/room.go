package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
)

// roomMost is how much is to stay free at most: a snapshot keeps what is changed
// after it, and without free metadata not even a restore's exchange is possible.
const roomMost = 2 << 30

// Room finds file systems that a run could fill, with the new closure and with
// what snapshots keep: by what is free of each kind, and not yet of any. What df
// says tells nothing of metadata. It notes what else matters of them. Without an
// agent on the host it is unknown.
func (r *Run) Room(ctx context.Context, l *Lane, h *PlanHost) (found []Finding, notes []string, err error) {
	var d agent.Discovery
	if err := l.peek(ctx, agent.OpDiscover, agent.DiscoverArgs{Paths: r.paths()}, &d); err != nil {
		return nil, nil, err
	}
	for _, f := range d.Filesystems {
		notes = append(notes, unusual(f)...)
		var closure uint64
		store := slices.ContainsFunc(d.Volumes, func(v agent.Volume) bool { return v.Path == "/nix" && v.FSID == f.FSID })
		if store && h != nil && h.Diff != nil {
			closure = uint64(max(h.Diff.Missing, 0))
		}
		for _, what := range lacking(f, closure) {
			found = append(found, Finding{Host: l.Name, What: what, Hint: []string{"deployer snapshots prune", "ssh " + l.Conf.Address + " btrfs filesystem usage /nix", "ssh " + l.Conf.Address + " nix-collect-garbage --dry-run"}})
		}
	}
	return found, notes, nil
}

// unusual says what of a file system slows snapshots and restores down, or keeps
// them from being safe.
func unusual(f agent.Filesystem) (list []string) {
	say := func(is bool, text string) {
		if is {
			list = append(list, f.Device+" "+text)
		}
	}
	say(f.Missing, "lacks one of its devices: what is written now may be lost with the next")
	say(f.Operation != "", "is at work ("+f.Operation+"): a snapshot or a restore may wait for it")
	say(f.Quotas, "has quotas on: writing with snapshots is several times slower, and deleted ones take minutes to be cleaned up")
	say(len(f.Sending) > 0, "is being sent from or received to ("+strings.Join(f.Sending, ", ")+"): the snapshots in use by that stay")
	return list
}

// lacking says of what a file system has too little, beside what is to come.
func lacking(f agent.Filesystem, closure uint64) (lacks []string) {
	floor := min(roomMost, f.Total/20)
	short := func(kind string, free, unallocated, need uint64) {
		if free+unallocated < need {
			lacks = append(lacks, fmt.Sprintf("%s has no room for a run's %s: %d MiB free and %d MiB not allocated, %d MiB are needed (the new system is %d MiB)",
				f.Device, kind, free>>20, unallocated>>20, need>>20, closure>>20))
		}
	}
	short("data", less(f.DataSize, f.Data), f.Unallocated, floor+closure)
	short("metadata", less(f.MetadataSize, f.Metadata+f.Reserve), f.Unallocated/max(f.Copies, 1), floor/4)
	return lacks
}

func less(a, b uint64) uint64 { return a - min(a, b) }

// peek is Call by an agent that is there: none is installed.
func (l *Lane) peek(ctx context.Context, op string, args, result any) error {
	if l.started() == nil {
		digest, _, err := l.agents.For(l.Seen.Arch)
		if err != nil || !l.Seen.Launcher {
			return errors.Join(err, errors.New("there is no agent"))
		}
		c, err := l.start(ctx, digest)
		if err != nil {
			return err
		}
		l.opening.Lock()
		l.client = c
		l.opening.Unlock()
	}
	return l.Call(ctx, op, args, result)
}

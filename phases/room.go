package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// peek is Call for planning, which installs nothing: by an agent that is there.
func (l *Lane) peek(ctx context.Context, op string, args, result any) error {
	if l.started() == nil {
		digest, _, err := l.agents.For(l.Seen.Arch)
		if err != nil || !l.Seen.Launcher {
			return errors.Join(err, errors.New("no agent is there"))
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

// Room refuses a run that could fill the host's disk, before it is given anything.
func (r *Run) Room(ctx context.Context, l *Lane) error {
	var d agent.Discovery
	if err := l.Call(ctx, agent.OpDiscover, roomOf(r.Project), &d); err != nil {
		return err
	}
	closure := int64(0)
	if h := r.Plan.host(l.Name); h != nil && h.Diff != nil {
		closure = h.Diff.Missing
	}
	return Refuse(cramped(l, d, closure))
}

// roomSeen is Room while planning. Where no agent is, that is not known until
// the run.
func (r *Run) roomSeen(ctx context.Context, l *Lane, h PlanHost) []Finding {
	var d agent.Discovery
	if h.Diff == nil || l.peek(ctx, agent.OpDiscover, roomOf(r.Project), &d) != nil {
		return nil
	}
	return cramped(l, d, h.Diff.Missing)
}

func roomOf(p *runbooks.Project) agent.DiscoverArgs {
	args := agent.DiscoverArgs{Paths: []string{"/nix"}}
	if p.Snapshots != nil {
		for path := range p.Snapshots.Subvolumes {
			args.Paths = append(args.Paths, path)
		}
	}
	slices.Sort(args.Paths)
	return args
}

// roomMost is how much is to stay free at most: a snapshot keeps what is changed
// after it, and without free metadata not even a restore's exchange is possible.
const roomMost = 2 << 30

// cramped says which Btrfs have no room for the new closure and for what
// snapshots keep: by what is free of each kind, and not yet of any. What df says
// tells nothing of metadata.
func cramped(l *Lane, d agent.Discovery, closure int64) (found []Finding) {
	store := ""
	for _, v := range d.Volumes {
		if v.Path == "/nix" {
			store = v.FSID
		}
	}
	for _, f := range d.Filesystems {
		floor := min(roomMost, f.Total/20)
		need := floor
		if f.FSID == store {
			need += uint64(max(closure, 0))
		}
		short := func(kind string, free, unallocated, need uint64) {
			if free+unallocated < need {
				found = append(found, Finding{Host: l.Name, Hint: []string{"ssh " + l.Conf.Address + " btrfs filesystem usage /nix", "ssh " + l.Conf.Address + " nix-collect-garbage --dry-run"},
					What: fmt.Sprintf("%s has no room for this run's %s: %d MiB free and %d MiB not allocated, %d MiB are needed (%d MiB of them for the new system)",
						f.Device, kind, free>>20, unallocated>>20, need>>20, (need-min(need, floor))>>20)})
			}
		}
		short("data", less(f.DataSize, f.Data), f.Unallocated, need)
		short("metadata", less(f.MetadataSize, f.Metadata+f.Reserve), f.Unallocated/max(f.Copies, 1), floor/4)
	}
	return found
}

func less(a, b uint64) uint64 { return a - min(a, b) }

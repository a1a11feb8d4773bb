package btrfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Create takes one set per file system, in the order of declaration.
func (p *provider) Create(ctx context.Context, req *sdk.CreateRequest) (*sdk.CreateResult, error) {
	l, err := p.look(ctx, req.GetHostRef(), req.GetDir(), req.GetSubjects())
	if err != nil {
		return nil, err
	}
	if problems := l.problems(); len(problems) > 0 {
		return nil, &sdk.Error{Code: "invalid", Message: "cannot snapshot: " + problems[0], Hint: problems[1:]}
	}
	result := &sdk.CreateResult{Consistency: consistency(l.subjects)}
	if req.GetDryRun() {
		return result, nil
	}
	for _, one := range l.sets() {
		sdk.Progress(ctx, fmt.Sprintf("%d snapshots into %s", len(one.subjects), one.dir))
		taken, err := p.take(ctx, req, l, one)
		if err != nil {
			return nil, fmt.Errorf("cannot snapshot %s: %w", strings.Join(paths(one), ", "), err)
		}
		for _, s := range taken {
			result.Snapshots = append(result.Snapshots, wireSnapshot(s))
		}
	}
	return result, nil
}

// consistency is what several snapshots are to each other: each is whole, and
// they are taken one after the other.
func consistency(subjects []*sdk.Subject) string {
	if len(subjects) > 1 {
		return "ordered"
	}
	return "single"
}

func (p *provider) take(ctx context.Context, req *sdk.CreateRequest, l *layout, one *set) ([]agent.Snapshot, error) {
	args := agent.SnapshotArgs{Run: req.GetRun(), Dir: one.dir, Stamp: req.GetStamp(), Paths: paths(one)}
	var taken agent.SnapshotSet
	err := p.core.Operate(ctx, req.GetHostRef(), agent.OpSnapshot, args, &taken)
	var failed *sdk.Error
	if errors.As(err, &failed) && failed.Code == "exists" {
		return p.earlier(ctx, req, l, one, err)
	}
	return taken.Snapshots, err
}

// earlier finds the set that an earlier try has taken. All of it must be
// there: the agent takes sets whole.
func (p *provider) earlier(ctx context.Context, req *sdk.CreateRequest, l *layout, one *set, exists error) ([]agent.Snapshot, error) {
	var all, set []agent.Snapshot
	err := p.core.Operate(ctx, req.GetHostRef(), agent.OpSnapshots, agent.DiscoverArgs{Paths: []string{one.dir}}, &all)
	if err != nil {
		return nil, err
	}
	for _, s := range one.subjects {
		found := false
		for _, snapshot := range all {
			if l.takenBy(req, one, s, snapshot) {
				snapshot.Source, found = path.Clean(s.GetPath()), true
				set = append(set, snapshot)
				break
			}
		}
		if !found {
			return nil, exists
		}
	}
	return set, nil
}

func (l *layout) takenBy(req *sdk.CreateRequest, one *set, s *sdk.Subject, snapshot agent.Snapshot) bool {
	v := l.of(s)
	same := snapshot.Source == path.Clean(s.GetPath()) || snapshot.ParentUUID != "" && snapshot.ParentUUID == v.UUID
	in := strings.HasPrefix(snapshot.Path, one.dir+"/") && strings.Contains(snapshot.Path, req.GetStamp())
	return same && in && snapshot.Run == req.GetRun()
}

func paths(one *set) []string {
	var list []string
	for _, s := range one.subjects {
		list = append(list, path.Clean(s.GetPath()))
	}
	return list
}

func wireSnapshot(s agent.Snapshot) *sdk.Snapshot {
	return &sdk.Snapshot{
		Source: s.Source, Path: s.Path, Id: s.ID, Uuid: s.UUID, ParentUuid: s.ParentUUID,
		ReadOnly: s.ReadOnly, Run: s.Run, Created: timestamppb.New(s.Created),
	}
}

package btrfs

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// layout is what one look at a host showed: the subjects, and every folder
// that could hold their snapshots.
type layout struct {
	subjects []*sdk.Subject
	dir      string
	volumes  map[string]agent.Volume // by path
}

// look learns all of it in one round trip.
func (p *provider) look(ctx context.Context, ref, dir string, subjects []*sdk.Subject) (*layout, error) {
	l := &layout{subjects: subjects, volumes: map[string]agent.Volume{}}
	if dir != "" {
		l.dir = path.Clean(dir)
	}
	if len(subjects) == 0 {
		return l, nil
	}
	found, err := p.discover(ctx, ref, l.wanted())
	if err != nil {
		return nil, err
	}
	for _, v := range found {
		l.volumes[path.Clean(v.Path)] = v
	}
	return l, nil
}

// wanted is every path to ask about: the subjects, and each folder for
// snapshots with those above it, since it may not be there yet.
func (l *layout) wanted() []string {
	var paths []string
	add := func(at string) {
		if !slices.Contains(paths, at) {
			paths = append(paths, at)
		}
	}
	for _, s := range l.subjects {
		add(path.Clean(s.GetPath()))
	}
	for _, dir := range append(l.candidates(l.subjects), usual) {
		for at := dir; ; at = path.Dir(at) {
			add(at)
			if at == path.Dir(at) {
				break
			}
		}
	}
	return paths
}

func (l *layout) of(s *sdk.Subject) agent.Volume { return l.volumes[path.Clean(s.GetPath())] }

// holder is the subvolume in which a folder lies or would lie; false where
// that is no Btrfs, or not known.
func (l *layout) holder(dir string) (agent.Volume, bool) {
	for at := dir; ; at = path.Dir(at) {
		v := l.volumes[at]
		if v.FS != "" && v.FS != "btrfs" {
			return v, false
		}
		if v.Btrfs && v.ID != 0 {
			return v, true
		}
		if at == path.Dir(at) {
			return v, false
		}
	}
}

// protects is the subject that a folder would lie inside of, be it in a
// subvolume below.
func (l *layout) protects(holder agent.Volume) (*sdk.Subject, bool) {
	for _, s := range l.subjects {
		v := l.of(s)
		below := v.Name == "" || strings.HasPrefix(holder.Name, v.Name+"/")
		if v.Root && v.FSID == holder.FSID && (v.ID == holder.ID || below) {
			return s, true
		}
	}
	return nil, false
}

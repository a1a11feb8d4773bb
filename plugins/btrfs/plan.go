package btrfs

import (
	"fmt"
	"path"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/sdk"
)

func (l *layout) plan() *sdk.PlanResponse {
	plan := &sdk.PlanResponse{Problems: l.problems(), Dirs: map[string]string{}}
	for _, s := range l.subjects {
		plan.Volumes = append(plan.Volumes, wireVolume(s.GetPath(), l.of(s)))
		plan.NotCovered = append(plan.NotCovered, l.leftOut(s)...)
	}
	for _, one := range l.sets() {
		for _, s := range one.subjects {
			plan.Dirs[s.GetPath()] = one.dir
		}
	}
	return plan
}

// problems is why Create would fail, all of it.
func (l *layout) problems() []string {
	var lines []string
	for _, s := range l.subjects {
		if line := unfit(s, l.of(s)); line != "" {
			lines = append(lines, line)
		}
		lines = append(lines, unbuilt(s)...)
	}
	if line := l.misplaced(); line != "" {
		return append(lines, line)
	}
	for _, one := range l.sets() {
		if one.dir == "" {
			lines = append(lines, fmt.Sprintf("there is no folder for the snapshot of %s on its file system, outside of what is snapshotted: set snapshots.dir to one", one.subjects[0].GetPath()))
		}
	}
	return lines
}

// unfit says why a path cannot be snapshotted at all.
func unfit(s *sdk.Subject, v agent.Volume) string {
	at, line := s.GetPath(), v.Problem
	switch {
	case !v.Btrfs && line == "":
		line = at + " is not there, or not on Btrfs"
	case v.Btrfs && !v.Root:
		line = fmt.Sprintf("%s is a folder inside the subvolume %q, not a subvolume of its own: declare that one, or make it one", at, "/"+v.Name)
	}
	if line != "" && !strings.Contains(line, at) {
		line = at + ": " + line
	}
	if !v.Btrfs && v.FS != "" && v.FS != "btrfs" {
		line += fmt.Sprintf(" (mounted there is %s)", v.FS)
	}
	return line
}

// unbuilt refuses by name what this version does not do, rather than ignore it.
func unbuilt(s *sdk.Subject) []string {
	var lines []string
	if policy := s.GetOnRollback(); policy != "" && policy != "keep" {
		lines = append(lines, fmt.Sprintf("%s: on_rollback %q is not built in this version: use keep", s.GetPath(), policy))
	}
	if units := s.GetPause(); len(units) > 0 {
		lines = append(lines, fmt.Sprintf("%s: pause (%s) is not built in this version: leave it out", s.GetPath(), strings.Join(units, ", ")))
	}
	return lines
}

// leftOut names the subvolumes below a subject that have no snapshot of their own.
func (l *layout) leftOut(s *sdk.Subject) []string {
	var lines []string
	for _, nested := range l.of(s).Nested {
		if !l.declared(path.Clean(s.GetPath()), nested) {
			lines = append(lines, fmt.Sprintf("%s: a subvolume below %s, empty in its snapshot", nested, s.GetPath()))
		}
	}
	return lines
}

func (l *layout) declared(below, nested string) bool {
	for _, s := range l.subjects {
		at := path.Clean(s.GetPath())
		if at == nested || at == path.Join(below, nested) || l.of(s).Name == nested {
			return true
		}
	}
	return false
}

func wireVolume(at string, v agent.Volume) *sdk.Volume {
	return &sdk.Volume{
		Path: at, Btrfs: v.Btrfs, Root: v.Root, Id: v.ID, Uuid: v.UUID, Name: v.Name,
		ReadOnly: v.ReadOnly, Nested: v.Nested, Fs: v.FS, Fsid: v.FSID, Free: v.Free, Problem: v.Problem,
	}
}

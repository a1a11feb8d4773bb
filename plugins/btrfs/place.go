package btrfs

import (
	"fmt"
	"path"

	"github.com/hbohlen/deployer/plugins/sdk"
)

const (
	usual  = "/.snapshots"
	ours   = "/nix/var/deployer/snapshots"
	beside = ".deployer-snapshots"
)

// candidates are the folders that may hold the snapshots of these subjects,
// the best first. Beside a subject comes last: where the root is made anew at
// every boot, that is a place which goes with it.
func (l *layout) candidates(subjects []*sdk.Subject) []string {
	var dirs []string
	if l.dir != "" {
		dirs = append(dirs, l.dir)
	}
	if l.volumes[usual].Root { // as a mere folder it is part of the root
		dirs = append(dirs, path.Join(usual, "deployer"))
	}
	dirs = append(dirs, ours)
	for _, s := range subjects {
		dirs = append(dirs, path.Join(path.Dir(path.Clean(s.GetPath())), beside))
	}
	return dirs
}

// set is what is taken in one operation: subjects of one file system, and
// the folder for them.
type set struct {
	fsid     string
	dir      string // empty: there is none
	subjects []*sdk.Subject
}

// sets groups the subjects that can be taken, in the order they were declared.
func (l *layout) sets() []*set {
	var sets []*set
	by := map[string]*set{}
	for _, s := range l.subjects {
		v := l.of(s)
		if unfit(s, v) != "" {
			continue
		}
		if by[v.FSID] == nil {
			by[v.FSID] = &set{fsid: v.FSID}
			sets = append(sets, by[v.FSID])
		}
		by[v.FSID].subjects = append(by[v.FSID].subjects, s)
	}
	for _, one := range sets {
		one.dir = l.place(one)
	}
	return sets
}

func (l *layout) place(one *set) string {
	for _, dir := range l.candidates(one.subjects) {
		holder, ok := l.holder(dir)
		if !ok || holder.FSID != one.fsid {
			continue
		}
		if _, inside := l.protects(holder); !inside {
			return dir
		}
	}
	return ""
}

// misplaced says what is wrong with the folder from deployer.yaml itself.
func (l *layout) misplaced() string {
	if l.dir == "" || len(l.subjects) == 0 {
		return ""
	}
	if !path.IsAbs(l.dir) {
		return fmt.Sprintf("the folder for snapshots, %s, is not an absolute path", l.dir)
	}
	holder, ok := l.holder(l.dir)
	if !ok {
		return fmt.Sprintf("the folder for snapshots, %s, is not on Btrfs", l.dir)
	}
	if s, inside := l.protects(holder); inside {
		return fmt.Sprintf("the folder for snapshots, %s, lies inside %s, which it is to protect: a restore would take them away; name a folder outside of it", l.dir, s.GetPath())
	}
	return ""
}

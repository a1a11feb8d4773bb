package agent

import (
	"cmp"
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// makers tell by a subvolume's path below the top level who made it. What is
// not deployer's can be restored from, and is never touched.
var makers = []struct {
	name string
	path *regexp.Regexp
}{
	{"deployer", regexp.MustCompile(`(?s)(^|/)\d{8}T\d{6}Z-[^/]+$`)},     // a name may hold a newline
	{"snapper", regexp.MustCompile(`(^|/)[^/]*snapshots/\d+/snapshot$`)}, // also where that is a subvolume's name
	{"btrbk", regexp.MustCompile(`(?s)[^/]\.\d{8}(T\d{4}(\d{2}[+-]\d{4})?)?(_\d+)?$`)},
	{"impermanence", regexp.MustCompile(`(^|/)old_roots/[^/]+$`)},
}

func makerOf(path string) string {
	for _, m := range makers {
		if m.path.MatchString(path) {
			return m.name
		}
	}
	return "somebody"
}

var snapshotName = regexp.MustCompile(`(?s)^\d{8}T\d{6}Z-(.+)$`)

// made is what this agent made, by uuid, from what it wrote down: names can be
// given by anybody.
func (a *agent) made() map[string]Snapshot {
	made := map[string]Snapshot{}
	s, err := a.store(false)
	if err != nil {
		return made
	}
	runs, _ := s.names("runs")
	for _, run := range runs {
		files, _ := s.names("runs/" + run)
		for _, file := range files {
			if !strings.HasPrefix(file, "set-") {
				continue
			}
			if r := load[setRecord](s, runFile(run, file)); r != nil && r.Done {
				for _, snap := range r.Set.Snapshots {
					made[snap.UUID] = snap
				}
			}
		}
		replaced := func(fsid, name, aside, uuid string, at time.Time) {
			made[uuid] = Snapshot{Name: aside, Origin: name, FSID: fsid, UUID: uuid, Run: run, Created: at, Replaced: true, Recorded: true}
		}
		for _, r := range restored(s, run) {
			for _, m := range r.Members {
				replaced(m.FSID, m.Name, m.Aside, m.Kept, r.Began)
			}
		}
		for _, r := range restorations(s, run) {
			for _, l := range r.Left {
				replaced(l.FSID, l.Name, l.Aside, l.UUID, l.Since)
			}
		}
	}
	delete(made, "")
	return made
}

// snapshots lists what is a snapshot on the file systems of the given paths,
// oldest first: deployer's own, also such as it has no record of, and on demand
// everybody's. They are dated by the kernel; mtime is the source's.
func (a *agent) snapshots(_ context.Context, args DiscoverArgs) ([]Snapshot, error) {
	mounts := a.mounts()
	paths := args.Paths
	if len(paths) == 0 {
		paths = btrfsMounts(mounts)
	}
	list, known, made := []Snapshot{}, map[string]bool{"none": true, "": true}, a.made()
	for _, p := range paths {
		fsid := a.fsidOf(p)
		if known[fsid] {
			continue
		}
		known[fsid] = true
		found, err := a.listOn(p, fsid, mounts, made)
		if err != nil {
			return nil, err
		}
		list = append(list, slices.DeleteFunc(found, func(s Snapshot) bool { return s.Maker != "deployer" && !args.Foreign })...)
	}
	slices.SortStableFunc(list, func(x, y Snapshot) int { return x.Created.Compare(y.Created) })
	return list, nil
}

func (a *agent) listOn(path, fsid string, mounts []mount, made map[string]Snapshot) ([]Snapshot, error) {
	f, err := btrfs.Open(a.host(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tree, err := btrfs.ReadTree(f)
	if err != nil {
		return nil, err
	}
	v := &volumes{dev: mountOf(mounts, a.host(path)).Dev, tree: tree}
	var list []Snapshot
	for _, info := range tree.All() {
		s, recorded := made[info.UUID]
		name, err := tree.Path(info.ID)
		if err != nil || !recorded && (info.ParentUUID+info.Received == "" || !info.ReadOnly && makerOf(name) == "somebody") {
			continue // deleted at this moment; live data
		}
		s.FSID, s.Name, s.Path, s.ID, s.UUID, s.ParentUUID = fsid, name, v.path(mounts, name), info.ID, info.UUID, info.ParentUUID
		s.ReadOnly, s.Changed, s.Maker = info.ReadOnly, info.Changed, "deployer"
		if !s.Replaced { // the subvolume's own age says nothing of how long it is aside
			s.Created = info.Created
		}
		if s.Replaced {
			s.Source = v.path(mounts, s.Origin)
		} else if !recorded {
			s.Maker = makerOf(name)
			v.origin(&s, mounts, made)
		}
		list = append(list, s)
	}
	return list, nil
}

// origin finds what a snapshot was taken of: by its parent, or by what that was
// before a restore replaced it. Deployer's own names hold the run as well:
// RUN-SUBVOLUME, where both may hold dashes.
func (v *volumes) origin(s *Snapshot, mounts []mount, made map[string]Snapshot) {
	id, found := v.tree.Find(s.ParentUUID)
	if parent := made[s.ParentUUID]; parent.Replaced {
		s.Origin, found = parent.Origin, true
	} else if found {
		s.Origin, _ = v.tree.Path(id)
	}
	if found {
		s.Source = cmp.Or(v.path(mounts, s.Origin), s.Origin)
	}
	if m := snapshotName.FindStringSubmatch(filepath.Base(s.Name)); m != nil && s.Maker == "deployer" {
		run, ok := strings.CutSuffix(m[1], "-"+dashed(s.Origin))
		if !ok { // it has another name by now, or is gone
			run = m[1][:max(0, strings.LastIndexByte(m[1], '-'))]
		}
		s.Run = generationPart.ReplaceAllString(run, "")
	}
}

var generationPart = regexp.MustCompile(`-g\d+$`)

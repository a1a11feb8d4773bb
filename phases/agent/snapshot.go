package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// snapper is what taking a set does to the file system.
type snapper interface {
	Sync(dir *os.File) error
	Snapshot(src, dir *os.File, name string) error
	Destroy(dir *os.File, name string) error
}

type kernel struct{}

func (kernel) Sync(dir *os.File) error                       { return btrfs.Sync(dir) }
func (kernel) Snapshot(src, dir *os.File, name string) error { return btrfs.Snapshot(src, dir, name) }
func (kernel) Destroy(dir *os.File, name string) error       { return btrfs.Destroy(dir, name) }

// shot is one snapshot of a set, before and after it is taken.
type shot struct {
	source string
	src    *os.File
	dir    *os.File
	fsid   string
	info   btrfs.Info
	name   string
	taken  bool
}

// snapshot takes a set: everything is checked first, dirty data is written out
// while nothing waits for it, then the snapshots follow each other within
// milliseconds, and the set is on the disk when this answers. One that fails
// takes those of this call, and only those, with it.
func (a *agent) snapshot(_ context.Context, args SnapshotArgs) (set SnapshotSet, err error) {
	shots, err := a.aim(args)
	defer func() {
		for _, s := range shots {
			s.close()
		}
	}()
	if err != nil {
		return set, err
	}
	disks := disksOf(shots)
	for _, s := range disks {
		if err := a.fs.Sync(s.dir); err != nil {
			return set, err
		}
	}
	for i := range shots {
		if err := a.fs.Snapshot(shots[i].src, shots[i].dir, shots[i].name); err != nil {
			return set, errors.Join(err, a.untake(shots))
		}
		shots[i].taken = true
	}
	for i := range shots {
		snap, err := shots[i].verify(args.Run)
		if err != nil {
			return SnapshotSet{}, errors.Join(err, a.untake(shots))
		}
		set.Snapshots = append(set.Snapshots, snap)
	}
	for _, s := range disks {
		if err := a.fs.Sync(s.dir); err != nil {
			return SnapshotSet{}, errors.Join(err, a.untake(shots))
		}
	}
	return set, nil
}

func disksOf(shots []*shot) []*shot {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(shots), func(s *shot) bool {
		was := seen[s.fsid]
		seen[s.fsid] = true
		return was
	})
}

func (a *agent) untake(shots []*shot) error {
	var errs []error
	for _, s := range shots {
		if s.taken {
			errs = append(errs, a.fs.Destroy(s.dir, s.name))
		}
	}
	return errors.Join(errs...)
}

func (s *shot) close() {
	for _, f := range []*os.File{s.src, s.dir} {
		if f != nil {
			f.Close()
		}
	}
}

// verify reads the snapshot back: read-only, and of the subvolume it was meant for.
func (s *shot) verify(run string) (Snapshot, error) {
	path := filepath.Join(s.dir.Name(), s.name)
	f, err := btrfs.Open(path)
	if err != nil {
		return Snapshot{}, err
	}
	defer f.Close()
	info, err := btrfs.Get(f)
	if err != nil {
		return Snapshot{}, err
	}
	if !btrfs.IsRoot(f) || !info.ReadOnly || info.ParentUUID != s.info.UUID {
		return Snapshot{}, fmt.Errorf("%s is not a read-only snapshot of %s", path, s.source)
	}
	return Snapshot{Source: s.source, Path: path, ID: info.ID, UUID: info.UUID, ParentUUID: info.ParentUUID,
		ReadOnly: true, Run: run, Created: info.Created}, nil
}

// aim opens and checks everything before anything is taken.
func (a *agent) aim(args SnapshotArgs) ([]*shot, error) {
	if err := errors.Join(checkName("run", args.Run), checkName("stamp", args.Stamp)); err != nil {
		return nil, err
	}
	if len(args.Paths) == 0 {
		return nil, &Error{Code: "invalid", Message: "cannot take a set of no snapshots"}
	}
	var shots []*shot
	for _, path := range args.Paths {
		s := &shot{source: path}
		shots = append(shots, s)
		if err := s.open(a.host(path)); err != nil {
			return shots, err
		}
	}
	subjects := map[string][]uint64{}
	for _, s := range shots {
		if slices.Contains(subjects[s.fsid], s.info.ID) {
			return shots, &Error{Code: "invalid", Message: s.source + " is in the set twice"}
		}
		subjects[s.fsid] = append(subjects[s.fsid], s.info.ID)
	}
	for _, s := range shots {
		if err := a.place(s, args, subjects[s.fsid]); err != nil {
			return shots, err
		}
	}
	return shots, nil
}

func (s *shot) open(path string) error {
	f, err := btrfs.Open(path)
	if errors.Is(err, btrfs.ErrNotBtrfs) {
		return &Error{Code: "not-btrfs", Message: "cannot snapshot: " + err.Error()}
	}
	if err != nil {
		return err
	}
	s.src = f
	if !btrfs.IsRoot(f) {
		return &Error{Code: "invalid", Message: "cannot snapshot: " + path + " is not a subvolume"}
	}
	if s.fsid, err = btrfs.FSID(f); err != nil {
		return err
	}
	s.info, err = btrfs.Get(f)
	return err
}

// place finds the folder for a snapshot and the name in it.
func (a *agent) place(s *shot, args SnapshotArgs, subjects []uint64) error {
	tree, err := btrfs.ReadTree(s.src)
	if err != nil {
		return err
	}
	path, err := tree.Path(s.info.ID)
	if err != nil {
		return err
	}
	s.name = args.Stamp + "-" + args.Run + "-" + dashed(path)
	for _, dir := range a.folders(args.Dir, s.fsid) {
		if s.dir, err = openFolder(a.host(dir), s.fsid, tree, subjects); err == nil {
			break
		}
	}
	if s.dir == nil {
		return cmpErr(err, &Error{Code: "invalid", Message: "found no folder for snapshots of " + s.source, Hint: []string{"name one: snapshots: {dir: /.snapshots}"}})
	}
	if _, err := os.Lstat(filepath.Join(s.dir.Name(), s.name)); err == nil {
		return &Error{Code: "exists", Message: filepath.Join(s.dir.Name(), s.name) + " is there already"}
	}
	return nil
}

func dashed(path string) string {
	return cmp.Or(strings.ReplaceAll(path, "/", "-"), "top")
}

// folders are where snapshots may go, the best first. The wanted one, if it is
// on the same file system. Else /.snapshots/deployer, where administrators look.
// Else the agent's own folder, which no set contains and nothing erases. Else
// beside the topmost mount; / comes last, since it may be erased at each boot.
func (a *agent) folders(wanted, fsid string) []string {
	if wanted != "" && (a.fsidOf(wanted) == fsid || a.fsidOf(wanted) == "") {
		return []string{wanted}
	}
	list := []string{}
	if a.fsidOf("/.snapshots") == fsid {
		list = append(list, "/.snapshots/deployer")
	}
	if a.Prefix == "" && a.fsidOf(a.Root) == fsid {
		list = append(list, filepath.Join(a.Root, "snapshots"))
	}
	var tops []string
	for _, m := range readMounts("/proc/self/mountinfo") {
		if m.FS == "btrfs" && within(m.Path, cmp.Or(a.Prefix, "/")) && a.fsidOf(strings.TrimPrefix(m.Path, a.Prefix)) == fsid {
			tops = append(tops, filepath.Join("/", strings.TrimPrefix(m.Path, a.Prefix), ".deployer-snapshots"))
		}
	}
	slices.SortStableFunc(tops, func(x, y string) int {
		return cmp.Or(cmp.Compare(lastRoot(x), lastRoot(y)), len(x)-len(y))
	})
	return append(list, tops...)
}

func lastRoot(dir string) int {
	if filepath.Dir(dir) == "/" {
		return 1
	}
	return 0
}

// fsidOf is the identity of the Btrfs that a path, or what will be its parent, lies on.
func (a *agent) fsidOf(path string) string {
	for ; path != ""; path = filepath.Dir(path) {
		f, err := btrfs.Open(a.host(path))
		if errors.Is(err, fs.ErrNotExist) && path != "/" {
			continue
		}
		if err != nil {
			return "none"
		}
		defer f.Close()
		id, _ := btrfs.FSID(f)
		return id
	}
	return ""
}

// openFolder makes a folder for snapshots and refuses one inside a subject: a
// restore exchanges the subject as a whole and would take its snapshots along.
func openFolder(dir, fsid string, tree *btrfs.Tree, subjects []uint64) (*os.File, error) {
	parent := dir
	for !exists(parent) {
		parent = filepath.Dir(parent)
	}
	if f, err := acceptFolder(parent, dir, fsid, tree, subjects); err != nil {
		return nil, err
	} else {
		f.Close()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return acceptFolder(dir, dir, fsid, tree, subjects)
}

func acceptFolder(path, dir, fsid string, tree *btrfs.Tree, subjects []uint64) (*os.File, error) {
	f, err := btrfs.Open(path)
	if errors.Is(err, btrfs.ErrNotBtrfs) {
		return nil, &Error{Code: "not-btrfs", Message: "cannot keep snapshots in " + dir + ": it is not on Btrfs"}
	}
	if err != nil {
		return nil, err
	}
	id, err := btrfs.FSID(f)
	if err == nil && id != fsid {
		err = &Error{Code: "invalid", Message: "cannot keep snapshots in " + dir + ": it is on another file system"}
	}
	var info btrfs.Info
	if err == nil {
		info, err = btrfs.Get(f)
	}
	for _, s := range subjects {
		if err == nil && tree.Inside(info.ID, s) {
			err = &Error{Code: "invalid", Message: "cannot keep snapshots in " + dir + ": it is inside a subvolume of the set",
				Hint: []string{"name a folder in another subvolume, such as a mount at /.snapshots"}}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// Snapper is what the agent asks a Btrfs for: the ioctls of package btrfs.
type Snapper struct {
	Open     func(path string) (*os.File, error)
	IsRoot   func(f *os.File) bool
	FSID     func(f *os.File) (string, error)
	Get      func(f *os.File) (btrfs.Info, error)
	Tree     func(f *os.File) (Tree, error)
	Sync     func(dir *os.File) error
	Snapshot func(src, dir *os.File, name string) error
	Destroy  func(dir *os.File, name string) error
}

// Tree is every subvolume of a file system: *btrfs.Tree.
type Tree interface {
	Path(id uint64) (string, error)
	Find(uuid string) (uint64, bool)
	Below(id uint64) []string
	Inside(id, other uint64) bool
}

var kernel = Snapper{
	Open: btrfs.Open, IsRoot: btrfs.IsRoot, FSID: btrfs.FSID, Get: btrfs.Get,
	Tree: func(f *os.File) (Tree, error) { return btrfs.ReadTree(f) },
	Sync: btrfs.Sync, Snapshot: btrfs.Snapshot, Destroy: btrfs.Destroy,
}

// describe is Get for a path that must be a subvolume's root itself.
func (s Snapper) describe(path string) (btrfs.Info, error) {
	f, err := s.Open(path)
	if err != nil {
		return btrfs.Info{}, err
	}
	defer f.Close()
	if !s.IsRoot(f) {
		return btrfs.Info{}, fmt.Errorf("%s is not a subvolume", path)
	}
	return s.Get(f)
}

// shot is one snapshot of a set, before and after it is taken.
type shot struct {
	source, name string
	src, dir     *os.File
	fsid         string
	info         btrfs.Info
	taken        bool
}

// snapshot takes a set: everything is checked first, dirty data is written out
// while nothing waits for it, then the snapshots follow each other within
// milliseconds, and the set is on the disk when this answers. One that fails
// takes those of this call, and only those, with it.
func (a *agent) snapshot(_ context.Context, args SnapshotArgs) (SnapshotSet, error) {
	shots, err := a.aim(args)
	defer func() {
		for _, s := range shots {
			s.src.Close() // nil is no harm
			s.dir.Close()
		}
	}()
	if err != nil {
		return SnapshotSet{}, err
	}
	list, err := a.take(shots, args.Run)
	if err != nil {
		return SnapshotSet{}, errors.Join(err, a.untake(shots))
	}
	return SnapshotSet{list}, nil
}

func (a *agent) take(shots []*shot, run string) (list []Snapshot, err error) {
	if err := a.syncAll(shots); err != nil {
		return nil, err
	}
	for _, s := range shots {
		if err := a.fs.Snapshot(s.src, s.dir, s.name); err != nil {
			return nil, err
		}
		s.taken = true
	}
	for _, s := range shots {
		snap, err := s.verify(a.fs, run)
		if err != nil {
			return nil, err
		}
		list = append(list, snap)
	}
	return list, a.syncAll(shots)
}

// syncAll syncs every file system of a set once.
func (a *agent) syncAll(shots []*shot) error {
	done := map[string]bool{}
	for _, s := range shots {
		if done[s.fsid] {
			continue
		}
		if err := a.fs.Sync(s.dir); err != nil {
			return err
		}
		done[s.fsid] = true
	}
	return nil
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

// verify reads the snapshot back: read-only, and of the subvolume it was meant for.
func (s *shot) verify(fs Snapper, run string) (Snapshot, error) {
	path := filepath.Join(s.dir.Name(), s.name)
	info, err := fs.describe(path)
	if err == nil && (!info.ReadOnly || info.ParentUUID != s.info.UUID) {
		err = fmt.Errorf("%s is not a read-only snapshot of %s", path, s.source)
	}
	return Snapshot{Source: s.source, Path: path, ID: info.ID, UUID: info.UUID, ParentUUID: info.ParentUUID,
		ReadOnly: true, Run: run, Created: info.Created}, err
}

// aim opens and checks everything before anything is taken.
func (a *agent) aim(args SnapshotArgs) (shots []*shot, err error) {
	if err := errors.Join(checkName("run", args.Run), checkName("stamp", args.Stamp)); err != nil {
		return nil, err
	}
	if len(args.Paths) == 0 {
		return nil, invalid("cannot take a set of no snapshots")
	}
	subjects := map[string][]uint64{}
	for _, path := range args.Paths {
		s := &shot{source: path}
		shots = append(shots, s)
		if err := s.open(a.fs, a.host(path)); err != nil {
			return shots, err
		}
		if slices.Contains(subjects[s.fsid], s.info.ID) {
			return shots, invalid("%s is in the set twice", path)
		}
		subjects[s.fsid] = append(subjects[s.fsid], s.info.ID)
	}
	for _, s := range shots {
		if err := a.place(s, args, subjects); err != nil {
			return shots, err
		}
	}
	return shots, nil
}

func (s *shot) open(fs Snapper, path string) (err error) {
	if s.src, err = fs.open(path, "cannot snapshot"); err != nil {
		return err
	}
	if !fs.IsRoot(s.src) {
		return invalid("cannot snapshot: %s is not a subvolume", path)
	}
	if s.fsid, err = fs.FSID(s.src); err == nil {
		s.info, err = fs.Get(s.src)
	}
	return err
}

func (s Snapper) open(path, what string) (*os.File, error) {
	f, err := s.Open(path)
	if errors.Is(err, btrfs.ErrNotBtrfs) {
		err = &Error{Code: "not-btrfs", Message: what + ": " + err.Error()}
	}
	return f, err
}

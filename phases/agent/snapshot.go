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

// snapper is what taking a set does to the file system.
type snapper interface {
	Sync(dir *os.File) error
	Snapshot(src, dir *os.File, name string) error
	Destroy(dir *os.File, name string) error
}

type kernel struct{}

func (kernel) Sync(dir *os.File) error { return btrfs.Sync(dir) }

func (kernel) Snapshot(src, dir *os.File, name string) error { return btrfs.Snapshot(src, dir, name) }

func (kernel) Destroy(dir *os.File, name string) error { return btrfs.Destroy(dir, name) }

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
		if err := a.place(s, args, subjects); err != nil {
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

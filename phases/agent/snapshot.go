package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

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
	Ballast  func(dir *os.File) // see layBallast
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
	Sync: btrfs.Sync, Snapshot: btrfs.Snapshot, Destroy: btrfs.Destroy, Ballast: layBallast,
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
	origin       string // the source's path below the top level
	src, dir     *os.File
	fsid         string
	info         btrfs.Info
	taken        bool
}

// setRecord is what the agent knows of a set: before it is taken, where it will
// be; afterwards, all of it.
type setRecord struct {
	Args SnapshotArgs `json:"args"`
	Done bool         `json:"done"`
	Set  SnapshotSet  `json:"set"`
}

// snapshot takes a set: everything is checked first, dirty data is written out
// while nothing waits for it, then the snapshots follow each other within
// milliseconds, and the set is on the disk when this answers. One that fails
// takes those of this call, and only those, with it; one that was cut short is
// begun again; one that was taken is answered with.
func (a *agent) snapshot(ctx context.Context, args SnapshotArgs) (SnapshotSet, error) {
	if err := errors.Join(checkName("run", args.Run), checkName("stamp", args.Stamp)); err != nil {
		return SnapshotSet{}, err
	}
	s, err := a.store(true)
	if err != nil {
		return SnapshotSet{}, err
	}
	alone, err := s.lock(runFile(args.Run, pauseLock), true)
	if err != nil {
		return SnapshotSet{}, err
	}
	defer alone.Close()
	file := runFile(args.Run, "set-"+args.Stamp+".json")
	if was := load[setRecord](s, file); was != nil {
		if was.Done && reflect.DeepEqual(was.Args, args) {
			return was.Set, nil
		}
		if err := a.leftovers(was); err != nil {
			return SnapshotSet{}, err
		}
	}
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
	r := setRecord{Args: args}
	for _, s := range shots {
		r.Set.Snapshots = append(r.Set.Snapshots, Snapshot{Path: filepath.Join(s.dir.Name(), s.name), ParentUUID: s.info.UUID})
	}
	if err := s.writeJSON(file, r); err != nil {
		return SnapshotSet{}, err
	}
	if r.Set, err = a.take(ctx, s, shots, args); err == nil {
		r.Done = true
		err = s.writeJSON(file, r)
	}
	if err != nil {
		return SnapshotSet{}, errors.Join(err, a.untake(shots), s.remove(file))
	}
	return r.Set, nil
}

// leftovers deletes what a set that was cut short has left: what lies where it
// was to be, read-only and of the same source.
func (a *agent) leftovers(was *setRecord) error {
	for _, s := range was.Set.Snapshots {
		info, err := a.fs.describe(s.Path)
		if was.Done || err != nil || !info.ReadOnly || info.ParentUUID != s.ParentUUID {
			continue
		}
		dir, err := a.fs.Open(filepath.Dir(s.Path))
		if err != nil {
			return err
		}
		err = a.fs.Destroy(dir, filepath.Base(s.Path))
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) take(ctx context.Context, s *store, shots []*shot, args SnapshotArgs) (set SnapshotSet, err error) {
	if err := a.syncAll(shots); err != nil {
		return set, err
	}
	release, err := a.still(ctx, s, args)
	if err != nil {
		return set, err
	}
	defer func() { _, _ = release() }()
	for _, s := range shots {
		if err = a.fs.Snapshot(s.src, s.dir, s.name); err != nil {
			break
		}
		s.taken = true
		a.at("snapshot")
	}
	paused, late := release()
	if err = errors.Join(err, late); err != nil {
		return set, err
	}
	set = SnapshotSet{Consistency: cmp.Or(args.Consistency, Single), Paused: paused}
	trees := map[string]Tree{}
	for _, s := range shots {
		if trees[s.fsid] == nil {
			if trees[s.fsid], err = a.fs.Tree(s.dir); err != nil {
				return set, err
			}
		}
		snap, err := s.verify(a.fs, trees[s.fsid], args)
		if err != nil {
			return set, err
		}
		set.Snapshots = append(set.Snapshots, snap)
		a.fs.Ballast(s.dir)
	}
	return set, a.syncAll(shots)
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
func (s *shot) verify(fs Snapper, tree Tree, args SnapshotArgs) (Snapshot, error) {
	path := filepath.Join(s.dir.Name(), s.name)
	info, err := fs.describe(path)
	if err == nil && (!info.ReadOnly || info.ParentUUID != s.info.UUID) {
		err = fmt.Errorf("%s is not a read-only snapshot of %s", path, s.source)
	}
	name, e := tree.Path(info.ID)
	return Snapshot{Source: s.source, Path: path, ID: info.ID, UUID: info.UUID, ParentUUID: info.ParentUUID, ReadOnly: true,
		Run: args.Run, Created: info.Created, Changed: info.Changed, FSID: s.fsid, Name: name, Origin: s.origin, Generation: args.Generation,
		Consistency: cmp.Or(args.Consistency, Single), Maker: "deployer", Recorded: true}, errors.Join(err, e)
}

// aim opens and checks everything before anything is taken.
func (a *agent) aim(args SnapshotArgs) (shots []*shot, err error) {
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
	if shots, err = a.nested(shots, subjects); err != nil {
		return shots, err
	}
	names := map[string]bool{}
	for _, s := range shots {
		if err := a.place(s, args, subjects, names); err != nil {
			return shots, err
		}
	}
	return shots, nil
}

// nested adds what is nested in a set: a snapshot has nothing of it but an
// empty folder. Not what is no live data: snapshots, and the agent's own folder.
func (a *agent) nested(shots []*shot, subjects map[string][]uint64) ([]*shot, error) {
	own, _ := a.fs.describe(a.Root)
	for _, parent := range shots {
		tree, err := a.fs.Tree(parent.src)
		if err != nil {
			return shots, err
		}
		for _, below := range tree.Below(parent.info.ID) {
			s := &shot{source: filepath.Join(parent.source, below)}
			if slices.Contains(strings.Split(below, "/"), ".snapshots") {
				continue
			}
			if err := s.open(a.fs, filepath.Join(parent.src.Name(), below)); err != nil {
				return append(shots, s), fmt.Errorf("%s is nested in %s: %w", s.source, parent.source, err)
			}
			if at, _ := tree.Path(s.info.ID); s.fsid != parent.fsid || !strings.HasSuffix("/"+at, "/"+below) {
				return append(shots, s), invalid("%s is nested in %s, but a mount of something else hides it", s.source, parent.source)
			}
			if s.info.ReadOnly || s.info.UUID == own.UUID || slices.Contains(subjects[s.fsid], s.info.ID) {
				s.src.Close()
				continue
			}
			shots = append(shots, s)
			subjects[s.fsid] = append(subjects[s.fsid], s.info.ID)
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

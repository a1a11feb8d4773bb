package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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

var (
	errNotSubvolume = errors.New("not a subvolume")
	// noSnapshot is how it is known that none is there: what merely could not be
	// looked at may be one.
	noSnapshot = []error{fs.ErrNotExist, unix.ENOTDIR, btrfs.ErrNotBtrfs, errNotSubvolume}
)

// describe is Get for a path that must be a subvolume's root itself.
func (s Snapper) describe(path string) (btrfs.Info, error) {
	f, err := s.Open(path)
	if err != nil {
		return btrfs.Info{}, err
	}
	defer f.Close()
	if !s.IsRoot(f) {
		return btrfs.Info{}, fmt.Errorf("%s is %w", path, errNotSubvolume)
	}
	return s.Get(f)
}

// shot is one snapshot of a set, before and after it is taken.
type shot struct {
	source, name string
	origin       string // the source's path below the top level
	src          *os.File
	on           *pool
	info         btrfs.Info
	taken        bool
}

func (s *shot) path() string { return filepath.Join(s.on.dir.Name(), s.name) }

// pool is a file system that a set is of.
type pool struct {
	fsid  string
	first *shot
	tree  Tree
	takes []uint64 // IDs of the subvolumes
	dir   *os.File // where the snapshots go
}

// aimed is a set that can be taken: everything is open and checked.
type aimed struct {
	shots []*shot
	pools []*pool
}

func (t *aimed) close() {
	for _, s := range t.shots {
		s.src.Close()
	}
	for _, p := range t.pools {
		p.dir.Close() // nil is no harm
	}
}

// add takes a subvolume over; it answers false for one that is in the set.
func (t *aimed) add(fs Snapper, s *shot, fsid string) (bool, error) {
	i := slices.IndexFunc(t.pools, func(p *pool) bool { return p.fsid == fsid })
	if i < 0 {
		tree, err := fs.Tree(s.src)
		if err != nil {
			s.src.Close()
			return false, err
		}
		i, t.pools = len(t.pools), append(t.pools, &pool{fsid: fsid, first: s, tree: tree})
	}
	s.on = t.pools[i]
	if slices.Contains(s.on.takes, s.info.ID) {
		s.src.Close()
		return false, nil
	}
	s.on.takes = append(s.on.takes, s.info.ID)
	t.shots = append(t.shots, s)
	return true, nil
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
	set, err := a.aim(args)
	defer set.close()
	if err != nil {
		return SnapshotSet{}, err
	}
	r := setRecord{Args: args}
	for _, s := range set.shots {
		r.Set.Snapshots = append(r.Set.Snapshots, Snapshot{Path: s.path(), ParentUUID: s.info.UUID})
	}
	if err := s.writeJSON(file, r); err != nil {
		return SnapshotSet{}, err
	}
	if r.Set, err = a.take(ctx, s, set, args); err == nil {
		r.Done = true
		err = s.writeJSON(file, r)
	}
	if err == nil {
		return r.Set, nil
	}
	gone := a.untake(set)
	if gone == nil { // the record tells whose it is: what is left goes at the next try
		gone = s.remove(file)
	}
	return SnapshotSet{}, errors.Join(err, gone)
}

// leftovers deletes what a set that was cut short has left: what lies where it
// was to be, read-only and of the same source.
func (a *agent) leftovers(was *setRecord) error {
	for _, s := range was.Set.Snapshots {
		if was.Done {
			continue
		}
		info, err := a.fs.describe(s.Path)
		if err != nil && !slices.ContainsFunc(noSnapshot, func(is error) bool { return errors.Is(err, is) }) {
			return err
		}
		if err != nil || !info.ReadOnly || info.ParentUUID != s.ParentUUID {
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

// dropCutShort deletes what sets of a run have left that nobody will begin again.
// What cannot be deleted keeps its record: it goes when the lane is closed anew.
func (a *agent) dropCutShort(s *store, run string) error {
	files, errs := s.names("runs/" + run)
	for _, file := range files {
		was := load[setRecord](s, runFile(run, file))
		if !strings.HasPrefix(file, "set-") || was == nil || was.Done || s.held(runFile(run, pauseLock)) {
			continue
		}
		err := a.leftovers(was)
		if err == nil {
			err = s.remove(runFile(run, file))
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

func (a *agent) take(ctx context.Context, s *store, t *aimed, args SnapshotArgs) (set SnapshotSet, err error) {
	if err := a.syncAll(t); err != nil {
		return set, err
	}
	release, err := a.still(ctx, s, args)
	if err != nil {
		return set, err
	}
	defer func() { _, _ = release() }()
	for _, s := range t.shots {
		if err = a.fs.Snapshot(s.src, s.on.dir, s.name); err != nil {
			break
		}
		s.taken = true
		a.at("snapshot")
	}
	paused, late := release()
	if err = errors.Join(err, late); err != nil {
		return set, err
	}
	for _, p := range t.pools {
		if p.tree, err = a.fs.Tree(p.dir); err != nil {
			return set, err
		}
		a.fs.Ballast(p.dir)
	}
	set = SnapshotSet{Consistency: cmp.Or(args.Consistency, Single), Paused: paused}
	for _, s := range t.shots {
		snap, err := s.verify(a.fs, args)
		if err != nil {
			return set, err
		}
		set.Snapshots = append(set.Snapshots, snap)
	}
	return set, a.syncAll(t)
}

// syncAll syncs every file system of a set once.
func (a *agent) syncAll(t *aimed) error {
	for _, p := range t.pools {
		if err := a.fs.Sync(p.dir); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) untake(t *aimed) error {
	var errs []error
	for _, s := range t.shots {
		if s.taken {
			errs = append(errs, a.fs.Destroy(s.on.dir, s.name))
		}
	}
	return errors.Join(errs...)
}

// verify reads the snapshot back: read-only, and of the subvolume it was meant for.
func (s *shot) verify(fs Snapper, args SnapshotArgs) (Snapshot, error) {
	path := s.path()
	info, err := fs.describe(path)
	if err == nil && (!info.ReadOnly || info.ParentUUID != s.info.UUID) {
		err = fmt.Errorf("%s is not a read-only snapshot of %s", path, s.source)
	}
	name, e := s.on.tree.Path(info.ID)
	return Snapshot{Source: s.source, Path: path, ID: info.ID, UUID: info.UUID, ParentUUID: info.ParentUUID, ReadOnly: true,
		Run: args.Run, Created: info.Created, Changed: info.Changed, FSID: s.on.fsid, Name: name, Origin: s.origin, Generation: args.Generation,
		Consistency: cmp.Or(args.Consistency, Single), Maker: "deployer", Recorded: true}, errors.Join(err, e)
}

// aim opens and checks everything before anything is taken.
func (a *agent) aim(args SnapshotArgs) (*aimed, error) {
	t := &aimed{}
	if len(args.Paths) == 0 {
		return t, invalid("cannot take a set of no snapshots")
	}
	for _, path := range args.Paths {
		s, fsid, err := a.fs.shot(path, a.host(path))
		if err != nil {
			return t, err
		}
		fresh, err := t.add(a.fs, s, fsid)
		if err == nil && !fresh {
			err = invalid("%s is in the set twice", path)
		}
		if err != nil {
			return t, err
		}
	}
	if err := a.nested(t); err != nil {
		return t, err
	}
	for _, p := range t.pools {
		if err := a.place(t, p, args.Dir); err != nil {
			return t, err
		}
	}
	return t, t.name(args)
}

// nested adds what is nested in a set: a snapshot has nothing of it but an
// empty folder. Not what is no live data: snapshots, and the agent's own folder.
func (a *agent) nested(t *aimed) error {
	own, _ := a.fs.describe(a.Root)
	for _, parent := range slices.Clone(t.shots) {
		for _, below := range parent.on.tree.Below(parent.info.ID) {
			if slices.Contains(strings.Split(below, "/"), ".snapshots") {
				continue
			}
			s, fsid, err := a.fs.shot(filepath.Join(parent.source, below), filepath.Join(parent.src.Name(), below))
			if err != nil {
				return fmt.Errorf("%s is nested in %s: %w", filepath.Join(parent.source, below), parent.source, err)
			}
			at, _ := parent.on.tree.Path(s.info.ID)
			switch hidden := fsid != parent.on.fsid || !strings.HasSuffix("/"+at, "/"+below); {
			case hidden:
				err = invalid("%s is nested in %s, but a mount of something else hides it", s.source, parent.source)
				fallthrough
			case s.info.ReadOnly || s.info.UUID == own.UUID:
				s.src.Close()
			default:
				_, err = t.add(a.fs, s, fsid)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// shot opens a subvolume that is to be taken, and answers with its file system.
func (s Snapper) shot(source, path string) (*shot, string, error) {
	f, err := s.open(path, "cannot snapshot")
	if err != nil {
		return nil, "", err
	}
	t := &shot{source: source, src: f}
	fsid, err := s.FSID(f)
	if err == nil {
		t.info, err = s.Get(f)
	}
	if !s.IsRoot(f) {
		err = invalid("cannot snapshot: %s is not a subvolume", path)
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return t, fsid, nil
}

func (s Snapper) open(path, what string) (*os.File, error) {
	f, err := s.Open(path)
	if errors.Is(err, btrfs.ErrNotBtrfs) {
		err = &Error{Code: "not-btrfs", Message: what + ": " + err.Error()}
	}
	return f, err
}

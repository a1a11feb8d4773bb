package btrfs

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Change is how one path differs between two snapshots.
type Change struct {
	Path string // in the older one; of what is new, in the newer one
	To   string // where it was moved to
	Kind string // new, changed, gone, moved
}

// The kinds of changes.
const (
	New     = "new"
	Changed = "changed" // content, owner, mode or attributes, or another file by its name
	Gone    = "gone"
	Moved   = "moved"
)

// Diff is what changed from one read-only snapshot to another, how many bytes
// of files only the newer one has, and how many only the older one has.
type Diff struct {
	Changes      []Change
	Bytes, Older uint64
}

// Compare finds what changed from older to newer, read-only subvolumes of the
// file system, in the time of the changes, however many files there are. It
// needs root.
//
// Blocks that were not written since the two went ways of their own are in both,
// and are passed by. In the others, an inode tells in which transaction it was
// touched last; whatever the kernel does to a file's content, names, owner or
// attributes, it does to its inode too (fs/btrfs/inode.c). So what was touched is
// compared item by item, and of folders each name that only one of them has:
// that is how what has no inode any more is found.
func (t *Tree) Compare(older, newer *os.File) (Diff, error) {
	c := &comparison{seen: map[uint64]bool{}}
	infos := [2]Info{}
	for i, f := range []*os.File{older, newer} {
		info, err := Get(f)
		if err == nil && !info.ReadOnly {
			err = fmt.Errorf("cannot compare %s: it can be written, and would change meanwhile", f.Name())
		}
		if err != nil {
			return Diff{}, err
		}
		infos[i], c.sides[i] = info, newSide(f, info.ID, c.seen)
	}
	since := t.parted(infos[0], infos[1])
	for _, s := range c.sides {
		if err := s.touched(since, c.add); err != nil {
			return Diff{}, fmt.Errorf("cannot compare %s with %s: %w", newer.Name(), older.Name(), err)
		}
	}
	for len(c.todo) > 0 {
		batch := c.todo
		c.todo = nil
		slices.Sort(batch) // neighbours are read at once
		c.sides[0].forget()
		c.sides[1].forget()
		for _, ino := range batch {
			if err := c.inode(ino); err != nil {
				return Diff{}, fmt.Errorf("cannot compare %s with %s: %w", newer.Name(), older.Name(), err)
			}
		}
	}
	slices.SortFunc(c.diff.Changes, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Kind, b.Kind))
	})
	c.diff.Changes = rewritten(c.diff.Changes)
	return c.diff, nil
}

// parted is the last transaction before two subvolumes went ways of their own,
// by what they are snapshots of; 0 if that is not to be found out.
func (t *Tree) parted(a, b Info) (since uint64) {
	ways := [2]map[string]uint64{{}, {}}
	for i, s := range [2]Info{a, b} {
		for until, known := ^uint64(0), true; known; {
			ways[i][s.UUID] = until
			if s.ParentUUID == "" {
				break
			}
			until = s.Made
			ways[i][s.ParentUUID] = until // also of one that was deleted since
			s, known = t.infos[t.ids[s.ParentUUID]]
		}
	}
	for uuid, until := range ways[0] {
		since = max(since, min(until, ways[1][uuid]))
	}
	return since
}

type comparison struct {
	sides [2]*side // the older one, the newer one
	seen  map[uint64]bool
	todo  []uint64
	diff  Diff
}

func (c *comparison) add(ino uint64) {
	if !c.seen[ino] {
		c.seen[ino] = true
		c.todo = append(c.todo, ino)
	}
}

func (c *comparison) inode(ino uint64) error {
	var found [2]*inode
	for i, s := range c.sides {
		var err error
		if found[i], err = s.inode(ino); err != nil {
			return err
		}
	}
	was, is := found[0], found[1]
	if was != nil && is != nil && was.made != is.made { // a number that was given again
		return cmp.Or(c.between(was, nil), c.between(nil, is))
	}
	return c.between(was, is)
}

// between tells what differs between an inode and itself; nil is one that is not there.
func (c *comparison) between(was, is *inode) error {
	if was == nil && is == nil {
		return nil
	}
	both := was != nil && is != nil
	was, is = cmp.Or(was, &inode{}), cmp.Or(is, &inode{})
	same := shared(was.content, is.content)
	newer, older := length(is.content)-same, length(was.content)-same
	c.diff.Bytes += newer
	c.diff.Older += older
	for _, way := range [2][2]map[string]uint64{{was.entries, is.entries}, {is.entries, was.entries}} {
		for name, child := range way[0] {
			if way[1][name] != child {
				c.add(child)
			}
		}
	}
	changed := both && (newer+older > 0 || was.stat != is.stat || !maps.Equal(was.xattrs, is.xattrs))
	if both && !changed && maps.Equal(was.names, is.names) {
		return nil
	}
	var paths [2][]string
	for i, n := range [2]*inode{was, is} {
		var err error
		if paths[i], err = c.sides[i].paths(n); err != nil {
			return err
		}
	}
	c.tell(paths[0], paths[1], changed)
	return nil
}

// tell names an inode's changes by the paths that it had and has.
func (c *comparison) tell(had, has []string, changed bool) {
	without := func(list, other []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(at string) bool { return slices.Contains(other, at) })
	}
	lost, got := without(had, has), without(has, had)
	if len(lost) > 0 && len(got) > 0 && len(lost) == len(had) && len(got) == len(has) {
		c.diff.Changes = append(c.diff.Changes, Change{Path: lost[0], To: got[0], Kind: Moved})
		lost, got = lost[1:], got[1:]
	}
	for _, at := range lost {
		c.diff.Changes = append(c.diff.Changes, Change{Path: at, Kind: Gone})
	}
	for _, at := range got {
		c.diff.Changes = append(c.diff.Changes, Change{Path: at, Kind: New})
	}
	if changed && len(had) > 0 {
		c.diff.Changes = append(c.diff.Changes, Change{Path: had[0], Kind: Changed})
	}
}

// rewritten makes one change of what is gone and new at one path: programs
// replace a file by another one that they rename to its name.
func rewritten(sorted []Change) (list []Change) {
	for _, c := range sorted {
		last := len(list) - 1
		if last >= 0 && list[last].Path == c.Path && list[last].Kind == Gone && c.Kind == New {
			list[last].Kind = Changed
			continue
		}
		list = append(list, c)
	}
	return list
}

// shared is how many bytes two files have in common, in the same places.
func shared(a, b []extent) (n uint64) {
	for len(a) > 0 && len(b) > 0 {
		x, y := a[0], b[0]
		from, to := max(x.at, y.at), min(x.at+x.len, y.at+y.len)
		if from < to && x.source == y.source {
			n += to - from
		}
		if x.at+x.len < y.at+y.len {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return n
}

func length(list []extent) (n uint64) {
	for _, e := range list {
		n += e.len
	}
	return n
}

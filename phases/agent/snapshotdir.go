package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// place finds the folder for the snapshots of a file system, and makes it.
func (a *agent) place(t *aimed, p *pool, wanted string) (err error) {
	dirs := []string{wanted}
	if at := a.fsidOf(wanted); wanted == "" || at != p.fsid && slices.ContainsFunc(t.pools, func(p *pool) bool { return p.fsid == at }) {
		dirs = a.folders(p.fsid) // the wanted folder is another file system's of the set
	}
	for _, dir := range dirs {
		if p.dir, err = a.fs.folder(a.host(dir), p.fsid, p.tree, a.takenAlong(dir, p.takes)); err == nil {
			return nil
		}
	}
	return firstOf(err, &Error{Code: "invalid", Message: "found no folder for snapshots of " + p.first.source, Hint: []string{"name one: snapshots: {dir: /.snapshots}"}})
}

// name gives every snapshot a name that nothing has: time, run, generation and
// the path below the top level.
func (t *aimed) name(args SnapshotArgs) (err error) {
	names := map[string]bool{}
	for _, s := range t.shots {
		if s.origin, err = s.on.tree.Path(s.info.ID); err != nil {
			return err
		}
		s.name = args.Stamp + "-" + args.Run + "-"
		if args.Generation > 0 {
			s.name += fmt.Sprintf("g%d-", args.Generation)
		}
		if s.name = shorten(s.name + dashed(s.origin)); names[s.name] { // a-b and a/b
			s.name = shorten(fmt.Sprintf("%s-%d", s.name, s.info.ID))
		}
		names[s.name] = true
		if lexists(s.path()) {
			return &Error{Code: "exists", Message: s.path() + " is there already"}
		}
	}
	return nil
}

func dashed(path string) string {
	return cmp.Or(strings.ReplaceAll(path, "/", "-"), "top")
}

// stampForm is how names tell the time: UTC, so that no clock change makes two
// of one or sorts them wrongly.
const stampForm = "20060102T150405Z"

// shorten makes a name fit, and differ still.
func shorten(name string) string {
	const longest = 255
	if len(name) <= longest {
		return name
	}
	return name[:longest-9] + "-" + sum([]byte(name))[:8]
}

// folders are where snapshots of a file system may go when nobody names one, the
// best first: /.snapshots/deployer, where administrators look; the agent's own
// folder, which no set contains and nothing erases; beside the topmost mount,
// where / comes last, since it may be erased at each boot.
func (a *agent) folders(fsid string) []string {
	var list, tops []string
	if a.fsidOf("/.snapshots") == fsid {
		list = append(list, "/.snapshots/deployer")
	}
	if a.Prefix == "" && a.fsidOf(a.Root) == fsid {
		list = append(list, a.ownSnapshots())
	}
	for _, m := range readMounts("/proc/self/mountinfo") {
		at, ours := strings.CutPrefix(m.Path, a.Prefix)
		if m.FS == "btrfs" && ours && a.fsidOf(at) == fsid {
			tops = append(tops, filepath.Join("/", at, ".deployer-snapshots"))
		}
	}
	slices.SortStableFunc(tops, func(x, y string) int { return lastRoot(x) - lastRoot(y) })
	return append(list, tops...)
}

func (a *agent) ownSnapshots() string { return filepath.Join(a.Root, "snapshots") }

// takenAlong is the subjects that a restore would take a folder along with. The
// agent's own subvolume moves on when the one that it is nested in is replaced.
func (a *agent) takenAlong(dir string, subjects []uint64) []uint64 {
	if _, err := a.fs.describe(a.Root); err == nil && dir == a.ownSnapshots() {
		return nil
	}
	return subjects
}

// lastRoot is a folder's place in the order: the length of its name, and / last.
func lastRoot(dir string) int {
	if filepath.Dir(dir) == "/" {
		return math.MaxInt32
	}
	return len(dir)
}

// fsidOf is the identity of the Btrfs that a path, or what will be its parent, lies on.
func (a *agent) fsidOf(path string) string {
	for ; path != ""; path = filepath.Dir(path) {
		f, err := a.fs.Open(a.host(path))
		if errors.Is(err, fs.ErrNotExist) && path != "/" {
			continue
		}
		if err != nil {
			return "none"
		}
		defer f.Close()
		id, _ := a.fs.FSID(f)
		return id
	}
	return ""
}

// folder makes a folder for snapshots and refuses one inside a subject: a
// restore exchanges the subject as a whole and would take its snapshots along.
func (s Snapper) folder(dir, fsid string, tree Tree, subjects []uint64) (*os.File, error) {
	parent := dir
	for !exists(parent) {
		parent = filepath.Dir(parent)
	}
	f, err := s.accept(parent, dir, fsid, tree, subjects)
	if err != nil || parent == dir {
		return f, err
	}
	f.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return s.accept(dir, dir, fsid, tree, subjects)
}

func (s Snapper) accept(path, dir, fsid string, tree Tree, subjects []uint64) (*os.File, error) {
	f, err := s.open(path, "cannot keep snapshots in "+dir)
	if err != nil {
		return nil, err
	}
	id, err := s.FSID(f)
	if err == nil && id != fsid {
		err = invalid("cannot keep snapshots in %s: it is on another file system", dir)
	}
	info, err2 := s.Get(f)
	if err = errors.Join(err, err2); err == nil && slices.ContainsFunc(subjects, func(id uint64) bool { return tree.Inside(info.ID, id) }) {
		err = &Error{Code: "invalid", Message: "cannot keep snapshots in " + dir + ": it is inside a subvolume of the set",
			Hint: []string{"name a folder in another subvolume, such as a mount at /.snapshots"}}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

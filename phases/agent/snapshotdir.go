package agent

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// place finds the folder for a snapshot and the name in it.
func (a *agent) place(s *shot, args SnapshotArgs, subjects map[string][]uint64) error {
	tree, err := btrfs.ReadTree(s.src)
	if err != nil {
		return err
	}
	path, err := tree.Path(s.info.ID)
	if err != nil {
		return err
	}
	s.name = args.Stamp + "-" + args.Run + "-" + dashed(path)
	dirs := []string{args.Dir}
	if args.Dir == "" || a.fsidOf(args.Dir) != s.fsid && subjects[a.fsidOf(args.Dir)] != nil {
		dirs = a.folders(s.fsid) // the wanted folder is another file system's of the set
	}
	for _, dir := range dirs {
		if s.dir, err = openFolder(a.host(dir), s.fsid, tree, subjects[s.fsid]); err == nil {
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

// folders are where snapshots of a file system may go when nobody names one,
// the best first: /.snapshots/deployer, where administrators look; the agent's own folder, which no set contains and nothing erases; beside the topmost
// mount, where / comes last, since it may be erased at each boot.
func (a *agent) folders(fsid string) []string {
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

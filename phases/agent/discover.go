package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// discover says what is behind each path, and why it could not be snapshotted.
func (a *agent) discover(_ context.Context, args DiscoverArgs) (Discovery, error) {
	mounts := readMounts(a.host("/proc/self/mountinfo"))
	paths := args.Paths
	if len(paths) == 0 {
		paths = btrfsMounts(mounts)
	}
	d := Discovery{Volumes: []Volume{}}
	for _, p := range paths {
		d.Volumes = append(d.Volumes, a.volume(p, mounts))
	}
	return d, nil
}

func btrfsMounts(mounts []mount) []string {
	var list []string
	for _, m := range mounts {
		if m.FS == "btrfs" && !slices.Contains(list, m.Path) {
			list = append(list, m.Path)
		}
	}
	return list
}

func (a *agent) volume(path string, mounts []mount) Volume {
	v := Volume{Path: path, FS: mountOf(mounts, path).FS}
	var st unix.Statfs_t
	if unix.Statfs(a.host(path), &st) == nil {
		v.Free = st.Bavail * uint64(st.Bsize)
	}
	f, err := a.fs.Open(a.host(path))
	if err != nil {
		v.Problem = problemOf(path, err)
		return v
	}
	defer f.Close()
	v.Btrfs, v.Root = true, a.fs.IsRoot(f)
	if err := a.fs.volume(&v, f); err != nil {
		v.Problem = err.Error()
	} else if !v.Root {
		v.Problem = path + " is a folder, not a subvolume"
	} else if swap := swapIn(f); swap != "" {
		v.Problem = path + " holds the active swap file " + swap + ": it cannot be snapshotted"
	}
	return v
}

func problemOf(path string, err error) string {
	switch {
	case errors.Is(err, btrfs.ErrNotBtrfs), errors.Is(err, unix.ENOTDIR):
		return path + " is not a folder on Btrfs"
	case errors.Is(err, os.ErrNotExist):
		return path + " does not exist"
	}
	return err.Error()
}

func (s Snapper) volume(v *Volume, f *os.File) error {
	info, err := s.Get(f)
	if err != nil {
		return err
	}
	v.ID, v.UUID, v.ReadOnly = info.ID, info.UUID, info.ReadOnly
	if v.FSID, err = s.FSID(f); err != nil {
		return err
	}
	tree, err := s.Tree(f)
	if err != nil {
		return err
	}
	if v.Root {
		for _, p := range tree.Below(info.ID) {
			v.Nested = append(v.Nested, filepath.Join(v.Path, p))
		}
	}
	v.Name, err = tree.Path(info.ID)
	return err
}

// swapIn finds an active swap file in a subvolume: the kernel refuses to
// snapshot that with ETXTBSY. Every subvolume has a device number of its own.
func swapIn(f *os.File) string {
	st, err := f.Stat()
	data, _ := os.ReadFile("/proc/swaps")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		file, _, _ := strings.Cut(line, " ")
		s, err := os.Stat(unescape(file))
		if err == nil && s.Mode().IsRegular() && s.Sys().(*syscall.Stat_t).Dev == st.Sys().(*syscall.Stat_t).Dev {
			return file
		}
	}
	return ""
}

var snapshotName = regexp.MustCompile(`(?s)^\d{8}T\d{6}Z-(.+)$`) // a name may hold a newline

// snapshots lists deployer's own, oldest first, in the folders where it keeps
// them for the given paths, and in those paths themselves: by their names,
// dated by the kernel.
func (a *agent) snapshots(_ context.Context, args DiscoverArgs) ([]Snapshot, error) {
	l := lister{fs: a.fs, mounts: readMounts(a.host("/proc/self/mountinfo")), seen: map[string]bool{}, list: []Snapshot{}}
	paths := args.Paths
	if len(paths) == 0 {
		paths = btrfsMounts(l.mounts)
	}
	for _, p := range paths {
		for _, dir := range append(a.folders(a.fsidOf(p)), p) {
			if !l.seen[dir] {
				l.seen[dir] = true
				l.add(a.host(dir))
			}
		}
	}
	slices.SortFunc(l.list, func(x, y Snapshot) int { return x.Created.Compare(y.Created) })
	return l.list, nil
}

type lister struct {
	fs     Snapper
	mounts []mount
	seen   map[string]bool // folders and uuids
	list   []Snapshot
}

func (l *lister) add(dir string) {
	f, err := l.fs.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	tree, err := l.fs.Tree(f)
	if err != nil {
		return
	}
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		m := snapshotName.FindStringSubmatch(name)
		info, err := l.fs.describe(filepath.Join(dir, name))
		if m == nil || err != nil || info.ParentUUID == "" || l.seen[info.UUID] {
			continue
		}
		l.seen[info.UUID] = true
		s := Snapshot{Path: filepath.Join(dir, name), ID: info.ID, UUID: info.UUID, ParentUUID: info.ParentUUID, ReadOnly: info.ReadOnly, Created: info.Created}
		s.Run, s.Source = l.origin(tree, m[1], info)
		l.list = append(l.list, s)
	}
}

// origin splits RUN-SUBVOLUME at the subvolume that it was taken of: both may
// hold dashes.
func (l *lister) origin(tree Tree, name string, info btrfs.Info) (run, source string) {
	if id, found := tree.Find(info.ParentUUID); found {
		path, _ := tree.Path(id)
		source = l.mounted(path)
		if run, ok := strings.CutSuffix(name, "-"+dashed(path)); ok {
			return run, source
		}
	}
	// The source has another name by now, or is gone.
	return name[:max(0, strings.LastIndexByte(name, '-'))], source
}

// mounted is where a subvolume is mounted, else its path below the top level.
func (l *lister) mounted(source string) string {
	for _, m := range l.mounts {
		if m.FS == "btrfs" && m.Root == "/"+source {
			return m.Path
		}
	}
	return source
}

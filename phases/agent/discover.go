package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// discover says what is behind each path, and why it could not be snapshotted,
// and of each file system how full it is and what goes on.
func (a *agent) discover(_ context.Context, args DiscoverArgs) (Discovery, error) {
	mounts := a.mounts()
	paths := args.Paths
	if len(paths) == 0 {
		paths = btrfsMounts(mounts)
	}
	d := Discovery{Volumes: []Volume{}}
	known := map[string]bool{"": true}
	for _, p := range paths {
		v := a.volume(p, mounts)
		d.Volumes = append(d.Volumes, v)
		if !known[v.FSID] {
			known[v.FSID] = true
			if f, err := a.filesystem(p, v.FSID, mounts); err == nil {
				d.Filesystems = append(d.Filesystems, f)
			}
		}
	}
	return d, nil
}

func (a *agent) filesystem(path, fsid string, mounts []mount) (Filesystem, error) {
	f, err := btrfs.Open(a.host(path))
	if err != nil {
		return Filesystem{}, err
	}
	defer f.Close()
	u, err := btrfs.Usage(f)
	if err != nil {
		return Filesystem{}, err
	}
	return Filesystem{FSID: fsid, Device: mountOf(mounts, a.host(path)).Source, Total: u.Device, Unallocated: u.Unallocated,
		Data: u.Data, DataSize: u.DataOf, Metadata: u.Meta, MetadataSize: u.MetaOf, Reserve: u.Reserve, Copies: u.Copies, Missing: u.MissingDevice,
		Operation: strings.TrimPrefix(a.line("/sys/fs/btrfs/"+fsid+"/exclusive_operation"), "none"),
		Quotas:    exists(a.host("/sys/fs/btrfs/" + fsid + "/qgroups")), Sending: sending()}, nil
}

// sending names processes that send or receive: the kernel tells nobody.
func sending() (list []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		data, _ := os.ReadFile(p)
		if args := strings.Split(string(data), "\x00"); len(args) > 2 && filepath.Base(args[0]) == "btrfs" && (args[1] == "send" || args[1] == "receive") {
			list = append(list, strings.TrimSpace(strings.Join(args, " ")))
		}
	}
	return list
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
	v := Volume{Path: path, FS: mountOf(mounts, a.host(path)).FS}
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
	} else if v.Swap = swapIn(f); v.Swap != "" {
		v.Problem = path + " holds the active swap file " + v.Swap + ": it cannot be snapshotted"
	}
	if v.Root {
		v.ByID, v.Own = a.mountedByID(v.FSID, v.ID), a.ownIn(v.FSID, v.ID)
	}
	return v
}

// ownIn tells whether a subvolume itself holds the agent's folder.
func (a *agent) ownIn(fsid string, id uint64) bool {
	f, err := a.fs.Open(a.Root)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := a.fs.Get(f)
	at, err2 := a.fs.FSID(f)
	return errors.Join(err, err2) == nil && info.ID == id && at == fsid && !a.fs.IsRoot(f)
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
	if t, ok := tree.(*btrfs.Tree); ok {
		v.Default = t.Default == info.ID
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

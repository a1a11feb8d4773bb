package btrfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Volume is a mount of a subvolume that is attached nowhere: no other process
// sees it, and it ends with its descriptor.
type Volume struct {
	*os.File
	mount int
}

// Close ends the mount, unless it was attached.
func (v Volume) Close() error {
	if v.File == nil {
		return nil
	}
	_ = unix.Close(v.mount)
	return v.File.Close()
}

// Mount mounts a subvolume by its path below the top level ("": that itself).
// The options of the first mount hold for the whole file system, also that it is
// read-only: without "ro" this would make it writable, which its administrator
// may have ended. With it, one that is writable stays so. It needs Linux 5.2.
func Mount(device, subvolume string) (Volume, error) {
	v, err := mount(device, subvolume)
	if err != nil {
		return v, fmt.Errorf("cannot mount %q of %s: %w", "/"+subvolume, device, err)
	}
	return v, nil
}

func mount(device, subvolume string) (v Volume, err error) {
	fd, err := unix.Fsopen("btrfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return v, err
	}
	defer unix.Close(fd)
	key, value := "subvol", "/"+subvolume
	if subvolume == "" {
		key, value = "subvolid", fmt.Sprint(topLevel)
	}
	for _, set := range [][2]string{{"source", device}, {key, value}} {
		if err := unix.FsconfigSetString(fd, set[0], set[1]); err != nil {
			return v, err
		}
	}
	if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
		return v, err
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return v, err
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return v, err
	}
	// The mount's own descriptor is a mere path, which no ioctl takes.
	root, err := unix.Openat(m, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(m)
		return v, err
	}
	return Volume{os.NewFile(uintptr(root), device+":/"+subvolume), m}, nil
}

// Attach puts the mount, or a part of it, to a path of the host, with the
// per-mount options of a line of mountinfo. For a part it is at scratch, an
// empty folder, for a moment: only what is attached can be bound.
func (v Volume) Attach(part, at, options, scratch string) error {
	attr := attributes(options)
	err := unix.MountSetattr(v.mount, "", unix.AT_EMPTY_PATH, attr)
	if err == nil && part == "" {
		err = move(v.mount, at)
	} else if err == nil {
		err = v.bind(part, at, scratch)
	}
	if err != nil {
		return fmt.Errorf("cannot mount %s at %s: %w", filepath.Join(v.Name(), part), at, err)
	}
	return nil
}

func (v Volume) bind(part, at, scratch string) error {
	if err := move(v.mount, scratch); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(scratch, unix.MNT_DETACH) }()
	fd, err := unix.OpenTree(int(v.Fd()), part, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return move(fd, at)
}

func move(mount int, at string) error {
	return unix.MoveMount(mount, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// settable are the options of a mount, as mountinfo has them; relatime is no bit.
var settable = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW, "noatime": unix.MOUNT_ATTR_NOATIME,
}

func attributes(options string) *unix.MountAttr {
	list := strings.Split(options, ",")
	a := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR__ATIME}
	for _, o := range list {
		a.Attr_set |= settable[o]
	}
	if !slices.Contains(list, "relatime") && !slices.Contains(list, "noatime") {
		a.Attr_set |= unix.MOUNT_ATTR_STRICTATIME
	}
	return a
}

// At opens a subvolume's root by its path below an open folder. No path: the
// folder itself. No link is followed.
func At(dir *os.File, path string) (*os.File, error) {
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), "/"+path), nil
}

// Exchange swaps two names below one mount, at one moment: RENAME_EXCHANGE. It
// is durable after Sync.
func Exchange(top *os.File, a, b string) error {
	if err := unix.Renameat2(int(top.Fd()), a, int(top.Fd()), b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("cannot exchange /%s and /%s: %w", a, b, err)
	}
	return nil
}

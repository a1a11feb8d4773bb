package btrfs

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotBtrfs is what opening a folder elsewhere gives.
var ErrNotBtrfs = errors.New("is not on Btrfs")

// Info is what the kernel knows of a subvolume.
type Info struct {
	ID               uint64
	UUID, ParentUUID string
	Received         string // uuid of what it is a copy of, by receive
	ReadOnly         bool
	Changed          uint64    // transaction of the last change
	Made             uint64    // transaction in which it was made or snapshotted
	Sent             uint64    // of a copy: the source's last change
	Created          time.Time // otime: when it was made or snapshotted
}

// Open opens a folder for the calls of this package.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, err
	}
	if uint64(st.Type)&0xffffffff != unix.BTRFS_SUPER_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%s %w", path, ErrNotBtrfs)
	}
	return f, nil
}

// IsRoot tells whether an open folder is a subvolume's root: its inode is 256,
// on Btrfs only there.
func IsRoot(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Sys().(*syscall.Stat_t).Ino == RootInode
}

// Get describes the subvolume that an open folder lies in.
func Get(f *os.File) (Info, error) {
	var a subvolInfoArgs
	if err := ioctl(f, iocGetSubvolInfo, &a); err != nil {
		return Info{}, fmt.Errorf("cannot describe the subvolume of %s: %w", f.Name(), err)
	}
	return Info{
		ID: a.ID, UUID: uuid(a.UUID), ParentUUID: uuid(a.ParentUUID), Received: uuid(a.Received),
		ReadOnly: a.Flags&rootFlagRO != 0, Changed: a.CTrans, Made: a.OTrans, Sent: a.STrans, Created: time.Unix(int64(a.OTime.Sec), int64(a.OTime.Nsec)).UTC(),
	}, nil
}

// FSID is the identity of an open folder's file system.
func FSID(f *os.File) (string, error) {
	var a fsInfoArgs
	if err := ioctl(f, iocFSInfo, &a); err != nil {
		return "", fmt.Errorf("cannot identify the file system of %s: %w", f.Name(), err)
	}
	return uuid(a.FSID), nil
}

// Snapshot makes a read-only snapshot of the subvolume src as dir/name. A name
// that is taken is fs.ErrExist: nothing is nested or replaced.
func Snapshot(src, dir *os.File, name string) error { return snapshot(src, dir, name, readOnly) }

// Copy is Snapshot, writable. A read-only snapshot is never made writable
// itself: the kernel would still take it for what it was received as.
func Copy(src, dir *os.File, name string) error { return snapshot(src, dir, name, 0) }

func snapshot(src, dir *os.File, name string, flags uint64) error {
	a := volArgsV2{FD: int64(src.Fd()), Flags: flags}
	return named(iocSnapCreateV2, "snapshot "+src.Name()+" as", dir, name, a.Name[:], &a)
}

// Destroy deletes a subvolume by its name. The kernel protects nothing: not a
// mounted one, not the root of the running system.
func Destroy(dir *os.File, name string) error {
	var a volArgs
	return named(iocSnapDestroy, "delete", dir, name, a.Name[:], &a)
}

// DestroyID deletes a subvolume by its id: no name can come to mean another one
// in between. It needs Linux 5.7.
func DestroyID(f *os.File, id uint64) error {
	a := volArgsV2{Flags: byID}
	binary.NativeEndian.PutUint64(a.Name[:], id)
	if err := ioctl(f, iocSnapDestroyV2, &a); err != nil {
		return fmt.Errorf("cannot delete subvolume %d: %w", id, err)
	}
	return nil
}

func named[T any](request uintptr, what string, dir *os.File, name string, field []byte, arg *T) error {
	err := setName(field, name)
	if err == nil {
		err = ioctl(dir, request, arg)
	}
	if err != nil {
		return fmt.Errorf("cannot %s %s: %w", what, filepath.Join(dir.Name(), name), err)
	}
	return nil
}

// Sync writes out dirty data and commits: what was done before is durable.
// Unlike START_SYNC and WAIT_SYNC it also writes file data out.
func Sync(f *os.File) error {
	if err := ioctl[byte](f, iocSync, nil); err != nil {
		return fmt.Errorf("cannot sync %s: %w", f.Name(), err)
	}
	return nil
}

// NewestReadOnly finds the newest read-only snapshot in a folder or one level
// below it, by creation time: mtime is the source's. No path: none is there.
func NewestReadOnly(dir string) (newest time.Time, path string, err error) {
	if _, err := os.Stat(dir); err != nil {
		return newest, "", err
	}
	for _, pattern := range []string{"*", "*/*"} {
		names, _ := fs.Glob(os.DirFS(dir), pattern)
		for _, name := range names {
			p := filepath.Join(dir, name)
			if st, err := os.Lstat(p); err != nil || !st.IsDir() { // not what a link leads to
				continue
			}
			if info, err := Describe(p); err == nil && info.ReadOnly && info.Created.After(newest) {
				newest, path = info.Created, p
			}
		}
	}
	return newest, path, nil
}

// Describe is Get for a path that must be a subvolume's root itself.
func Describe(path string) (Info, error) {
	f, err := Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	if !IsRoot(f) {
		return Info{}, fmt.Errorf("%s is not a subvolume", path)
	}
	return Get(f)
}

func uuid(b [16]byte) string {
	if b == [16]byte{} {
		return ""
	}
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

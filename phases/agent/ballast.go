package agent

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// A ballast keeps 16 MiB of metadata for the way back: with data full an exchange
// still works, with metadata full it does not, and neither does a balance. Long
// attributes of one file are all metadata, and go with it in one call.
const (
	ballastName  = ".deployer-ballast"
	ballastParts = 1200  // the kernel reserves 12 MiB for one exchange of two subvolumes
	ballastPart  = 14000 // below what a node holds
)

// layBallast makes the ballast beside snapshots, unless it is there. Where there
// is no room for it, the check of the space has said so.
func layBallast(dir *os.File) {
	temp := ballastName + "." + token()
	fd, err := unix.Openat(int(dir.Fd()), ballastName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return
	}
	if fd, err = unix.Openat(int(dir.Fd()), temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); err != nil {
		return
	}
	defer unix.Close(fd)
	part := make([]byte, ballastPart)
	for i := 0; i < ballastParts && err == nil; i++ {
		err = unix.Fsetxattr(fd, fmt.Sprintf("user.%d", i), part, unix.XATTR_CREATE)
	}
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), ballastName)
	}
	if err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), temp, 0)
	}
}

// spared does again, without the ballast, what had no room.
func spared(do func(*volumes, *member) error) func(*volumes, *member) error {
	return func(v *volumes, m *member) error {
		err := do(v, m)
		if !errors.Is(err, unix.ENOSPC) {
			return err
		}
		if e := unix.Unlinkat(int(v.top.Fd()), path.Dir(m.Aside)+"/"+ballastName, 0); e == nil {
			err = errors.Join(btrfs.Sync(v.top.File), btrfs.Sync(v.top.File)) // what was deleted counts after a commit
			if err == nil {
				err = do(v, m)
			}
		}
		if errors.Is(err, unix.ENOSPC) {
			err = &Error{Code: "no-space", Message: err.Error() + ": the metadata is full", Hint: []string{
				"btrfs filesystem usage MOUNT   # unallocated, metadata", "rm large folders or delete old snapshots; btrfs filesystem sync MOUNT, twice", "deployer rollback"}}
		}
		return err
	}
}

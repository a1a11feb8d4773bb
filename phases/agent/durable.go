package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

type putOptions struct {
	mode      uint32
	uid, gid  int
	chown     bool
	exclusive bool // fail with fs.ErrExist where the name is taken
}

// putAt writes a file so that it is whole and on the disk when it returns:
// temporary name, fsync, rename (or link, to be the only one), fsync of the folder.
func putAt(dirfd int, name string, data []byte, o putOptions) (err error) {
	temp := ".new." + token()
	fd, err := unix.Openat(dirfd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil || o.exclusive {
			_ = unix.Unlinkat(dirfd, temp, 0)
		}
	}()
	if err := fill(f, data, o); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	if err := place(dirfd, temp, name, o.exclusive); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return unix.Fsync(dirfd)
}

func fill(f *os.File, data []byte, o putOptions) error {
	_, err := f.Write(data)
	if o.chown {
		err = errors.Join(err, f.Chown(o.uid, o.gid))
	}
	// Chmod after chown, which clears set-user-ID bits.
	return errors.Join(err, f.Chmod(fs.FileMode(o.mode)), f.Sync(), f.Close())
}

func place(dirfd int, temp, name string, exclusive bool) error {
	if exclusive {
		return unix.Linkat(dirfd, temp, dirfd, name, 0)
	}
	return unix.Renameat(dirfd, temp, dirfd, name)
}

// linkAt makes name a symbolic link to target, replacing an older link, durable.
func linkAt(dir, name, target string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	temp := ".new." + token()
	if err := unix.Symlinkat(target, int(d.Fd()), temp); err != nil {
		return fmt.Errorf("cannot link %s: %w", name, err)
	}
	if err := unix.Renameat(int(d.Fd()), temp, int(d.Fd()), name); err != nil {
		_ = unix.Unlinkat(int(d.Fd()), temp, 0)
		return fmt.Errorf("cannot link %s: %w", name, err)
	}
	return d.Sync()
}

// removeAt removes a file or link, durable; one that is gone already is fine.
func removeAt(dir, name string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove %s/%s: %w", dir, name, err)
	}
	return d.Sync()
}

func token() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// content is what a file is to be.
type content struct {
	data  []byte
	mode  uint32
	owner *Owner // nil: the agent's
}

// replace makes a name in an open folder something else as a whole, and durable:
// a reader, and a power cut at any moment, find either the old or the new. With
// exclusive the name must be free: of several that try at once one succeeds, the
// others get fs.ErrExist.
func replace(dir *os.File, name string, exclusive bool, create func(dirfd int, temp string) error) error {
	fd, temp := int(dir.Fd()), ".new."+token()
	err := create(fd, temp)
	switch {
	case err == nil && exclusive:
		err = unix.Linkat(fd, temp, fd, name, 0)
	case err == nil:
		err = unix.Renameat(fd, temp, fd, name)
	}
	if err != nil || exclusive {
		_ = unix.Unlinkat(fd, temp, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return dir.Sync()
}

func (c content) at(dirfd int, temp string) error {
	fd, err := unix.Openat(dirfd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	_, err = f.Write(c.data)
	if c.owner != nil {
		err = errors.Join(err, f.Chown(c.owner.UID, c.owner.GID))
	}
	// Chmod after chown, which clears set-user-ID bits.
	return errors.Join(err, f.Chmod(fs.FileMode(c.mode)), f.Sync(), f.Close())
}

// inDir does something in a folder of the host.
func inDir(path string, do func(dir *os.File) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

func linkAt(path, name, target string) error {
	return inDir(path, func(dir *os.File) error {
		return replace(dir, name, false, func(dirfd int, temp string) error { return unix.Symlinkat(target, dirfd, temp) })
	})
}

// removeAt removes a file or link, durable; one that is gone already is fine.
func removeAt(path, name string) error {
	err := inDir(path, func(dir *os.File) error {
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
			return fmt.Errorf("cannot remove %s/%s: %w", path, name, err)
		}
		return dir.Sync()
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func token() string { return rand.Text()[:12] }

package agent

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Disk is one folder of the host, and the least that can be done in it. Names
// are relative to it and no method follows a link. Nothing is durable until it
// was synced: what is in a file by its Sync, names by SyncDir of their folder.
type Disk interface {
	Stat(name string) (fs.FileInfo, error)
	Read(name string) ([]byte, fs.FileInfo, error) // no data of what is no regular file
	List(dir string) ([]string, error)
	Create(name string) (DiskFile, error) // fs.ErrExist where the name is taken; mode 0600
	Append(name string) (DiskFile, error) // made where it is not there
	Rename(from, to string) error
	Link(from, to string) error // fs.ErrExist where the name is taken
	Symlink(target, name string) error
	Unlink(name string) error
	Mkdir(name string) error
	SyncDir(dir string) error
	// Lock is flock(2): unix.EWOULDBLOCK where somebody has it, never a wait.
	Lock(name string, shared, create bool) (io.Closer, error)
	Close() error
}

// DiskFile is an open file of a Disk.
type DiskFile interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Chown(uid, gid int) error
	Chmod(mode fs.FileMode) error
	Sync() error
}

// folder is the kernel's Disk. Every name is opened relative to the folder's own
// descriptor and without following a symbolic link, so that whoever can write
// elsewhere on the host cannot lead root anywhere.
type folder struct{ f *os.File }

// openDisk opens a folder; with follow also one that a link leads to.
func openDisk(dir string, follow bool) (Disk, error) {
	flags := unix.O_DIRECTORY | unix.O_RDONLY
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := os.OpenFile(dir, flags, 0)
	if err != nil {
		return nil, err
	}
	return folder{f}, nil
}

// Folder is the kernel's Disk of a folder.
func Folder(dir string) (Disk, error) { return openDisk(dir, true) }

func (d folder) Close() error { return d.f.Close() }

func (d folder) open(name string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o600
	}
	for {
		fd, err := unix.Openat2(int(d.f.Fd()), name, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // somebody renamed on the way: openat2(2)
			continue
		}
		if err != nil {
			return nil, d.failed("open", name, err)
		}
		return os.NewFile(uintptr(fd), path.Join(d.f.Name(), name)), nil
	}
}

func (d folder) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path.Join(d.f.Name(), name), Err: err}
}

// in does something to a name in its open folder.
func (d folder) in(op, name string, do func(dirfd int, base string) error) error {
	dir, err := d.open(path.Dir(name), unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	return d.failed(op, name, do(int(dir.Fd()), path.Base(name)))
}

func (d folder) Stat(name string) (fs.FileInfo, error) {
	f, err := d.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func (d folder) Read(name string) ([]byte, fs.FileInfo, error) {
	f, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK) // never waits for a FIFO's other end
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, st, err
	}
	data, err := io.ReadAll(f)
	return data, st, err
}

func (d folder) List(dir string) ([]string, error) {
	f, err := d.open(dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d folder) Create(name string) (DiskFile, error) {
	return file(d.open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY))
}

func (d folder) Append(name string) (DiskFile, error) {
	return file(d.open(name, unix.O_CREAT|unix.O_APPEND|unix.O_RDWR|unix.O_NONBLOCK))
}

func file(f *os.File, err error) (DiskFile, error) {
	if err != nil {
		return nil, err // and no *os.File that is nil
	}
	return f, nil
}

func (d folder) Rename(from, to string) error { return d.pair("rename", from, to, unix.Renameat) }

func (d folder) Link(from, to string) error {
	return d.pair("link", from, to, func(fromfd int, from string, tofd int, to string) error {
		return unix.Linkat(fromfd, from, tofd, to, 0)
	})
}

func (d folder) pair(op, from, to string, do func(int, string, int, string) error) error {
	return d.in(op, from, func(fromfd int, from string) error {
		return d.in(op, to, func(tofd int, to string) error { return do(fromfd, from, tofd, to) })
	})
}

func (d folder) Symlink(target, name string) error {
	return d.in("symlink", name, func(fd int, base string) error { return unix.Symlinkat(target, fd, base) })
}

func (d folder) Unlink(name string) error {
	return d.in("remove", name, func(fd int, base string) error { return unix.Unlinkat(fd, base, 0) })
}

func (d folder) Mkdir(name string) error {
	return d.in("make", name, func(fd int, base string) error { return unix.Mkdirat(fd, base, 0o700) })
}

func (d folder) SyncDir(dir string) error {
	f, err := d.open(dir, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return cmp.Or(f.Sync(), f.Close())
}

func (d folder) Lock(name string, shared, create bool) (io.Closer, error) {
	flags, how := unix.O_RDWR|unix.O_NONBLOCK, unix.LOCK_EX|unix.LOCK_NB
	if create {
		flags |= unix.O_CREAT
	}
	if shared {
		how = unix.LOCK_SH | unix.LOCK_NB
	}
	f, err := d.open(name, flags)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

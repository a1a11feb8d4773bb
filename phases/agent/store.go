package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// store is the agent's folder on the host. Every name is opened relative to the
// folder's own descriptor and without following a symbolic link, so that
// whoever can write elsewhere on the host cannot lead root anywhere.
type store struct {
	dir string
	fd  int
}

// openStore opens the folder, and makes it first if it may.
func openStore(dir string, create bool) (*store, error) {
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", dir, err)
		}
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	s := &store{dir: dir, fd: fd}
	if err := s.private(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// private refuses a folder that somebody else could have written into: what
// lies in it is executed and read as recipes.
func (s *store) private() error {
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return &Error{Code: "invalid", Message: fmt.Sprintf("cannot trust %s: owner %d, mode %04o", s.dir, st.Uid, st.Mode&0o7777),
			Hint: []string{"find " + s.dir + " -ls", "chown root " + s.dir, "chmod 0700 " + s.dir}}
	}
	return nil
}

func (s *store) open(name string, flags int, mode fs.FileMode) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for {
		fd, err := unix.Openat2(s.fd, name, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // somebody renamed on the way: openat2(2)
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path.Join(s.dir, name), Err: err}
		}
		return os.NewFile(uintptr(fd), path.Join(s.dir, name)), nil
	}
}

func (s *store) read(name string) ([]byte, error) {
	f, err := s.open(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func (s *store) readJSON(name string, v any) error {
	data, err := s.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cannot read %s: %w", path.Join(s.dir, name), err)
	}
	return nil
}

// mkdir makes a folder and what leads to it, each durable in its parent.
func (s *store) mkdir(name string) error {
	if name == "." {
		return nil
	}
	if err := s.mkdir(path.Dir(name)); err != nil {
		return err
	}
	parent, err := s.open(path.Dir(name), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	err = unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o700)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", path.Join(s.dir, name), err)
	}
	return parent.Sync()
}

// write replaces a file as a whole: a reader, and a power cut at any moment,
// find either the old content or the new.
func (s *store) write(name string, data []byte) error { return s.put(name, data, false) }

// create is write for a name that must not be there yet: of several that try
// at once exactly one succeeds, the others get fs.ErrExist.
func (s *store) create(name string, data []byte) error { return s.put(name, data, true) }

func (s *store) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return s.write(name, append(data, '\n'))
}

func (s *store) put(name string, data []byte, exclusive bool) error {
	if err := s.mkdir(path.Dir(name)); err != nil {
		return err
	}
	parent, err := s.open(path.Dir(name), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	return putAt(int(parent.Fd()), path.Base(name), data, putOptions{mode: 0o600, exclusive: exclusive})
}

// names lists a folder, sorted; a missing one is empty.
func (s *store) names(dir string) ([]string, error) {
	f, err := s.open(dir, unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (s *store) exists(name string) bool {
	f, err := s.open(name, unix.O_PATH, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// inode tells one version of a replaced file from the next.
func (s *store) inode(name string) uint64 {
	var st unix.Stat_t
	f, err := s.open(name, unix.O_PATH, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

func (s *store) createJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return s.create(name, append(data, '\n'))
}

// flock waits for a lock that ends with the file or the process.
func (s *store) flock(name string) (*os.File, error) {
	f, err := s.open(name, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
	}
}

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

func (s *store) write(name string, data []byte) error { return s.put(name, data, false) }

// create is write for a name that must not be there yet.
func (s *store) create(name string, data []byte) error { return s.put(name, data, true) }

func (s *store) writeJSON(name string, v any) error  { return s.putJSON(name, v, false) }
func (s *store) createJSON(name string, v any) error { return s.putJSON(name, v, true) }

func (s *store) putJSON(name string, v any, exclusive bool) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return s.put(name, append(data, '\n'), exclusive)
}

func (s *store) put(name string, data []byte, exclusive bool) error {
	if err := s.mkdir(path.Dir(name)); err != nil {
		return err
	}
	dir, err := s.open(path.Dir(name), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return replace(dir, path.Base(name), exclusive, content{data: data, mode: 0o600}.at)
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

// lock takes a lock that ends with the file or the process; with wait unset it
// answers unix.EWOULDBLOCK where somebody has it.
func (s *store) lock(name string, wait bool) (*os.File, error) {
	f, err := s.open(name, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
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

// held tells whether somebody holds a lock now; the test gives it back at once.
func (s *store) held(name string) bool {
	f, err := s.open(name, unix.O_RDWR, 0)
	return err == nil && taken(f)
}

// taken tests the lock of a file and closes it.
func taken(f *os.File) bool {
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that somebody has is tried again.
const lockPoll = 5 * time.Millisecond

// store is the agent's folder on the host: whole files, durable when a method
// that writes has returned, also those that another process left half done.
type store struct {
	dir  string
	disk Disk

	mu      sync.Mutex
	durable map[string]bool // names that this process has synced in their folder
}

// openStore opens the folder, and makes it first if it may.
func (o Options) openStore(dir string, create bool) (*store, error) {
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", dir, err)
		}
	}
	disk, err := o.disk(dir, false)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	s := &store{dir: dir, disk: disk, durable: map[string]bool{}}
	st, err := disk.Stat(".")
	if err == nil && !private(st, 0o077) {
		err = s.distrust(".", st)
	}
	if err != nil {
		disk.Close()
		return nil, err
	}
	return s, nil
}

// private tells whether only the agent could have written something: what lies
// in its folder is executed and read as recipes.
func private(st fs.FileInfo, others fs.FileMode) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid() && st.Mode().Perm()&others == 0
}

func (s *store) distrust(name string, st fs.FileInfo) error {
	at, owner := path.Join(s.dir, name), -1
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		owner = int(sys.Uid)
	}
	return &Error{Code: "invalid", Message: fmt.Sprintf("cannot trust %s: owner %d, mode %04o", at, owner, st.Mode().Perm()),
		Hint: []string{"find " + at + " -ls", "chown root " + at, "chmod go= " + at}}
}

// read refuses what is no file of the agent's own.
func (s *store) read(name string) ([]byte, error) {
	data, st, err := s.disk.Read(name)
	if err == nil && !(st.Mode().IsRegular() && private(st, 0o022)) {
		err = s.distrust(name, st)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
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
	if err := s.disk.Mkdir(name); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make %s: %w", path.Join(s.dir, name), err)
	}
	return s.settle(name)
}

// settle makes a name durable that may have been there before: whoever made it
// may have been killed just then.
func (s *store) settle(name string) error {
	s.mu.Lock()
	done := s.durable[name]
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.disk.SyncDir(path.Dir(name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable[name] = true
	return nil
}

func (s *store) write(name string, data []byte) error { return s.put(name, data, false) }

// create is write for a name that must not be there yet. fs.ErrExist says that
// another file has it, for good.
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
	return replace(s.disk, name, exclusive, content{data: data, mode: 0o600}.create)
}

// append adds whole lines to a file. A line that a power cut tore gets an end of
// its own first: nothing is ever glued to it.
func (s *store) append(name string, data []byte) error {
	if err := s.mkdir(path.Dir(name)); err != nil {
		return err
	}
	f, err := s.disk.Append(name)
	if err != nil {
		return err
	}
	err = s.extend(f, name, data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot add to %s: %w", path.Join(s.dir, name), err)
	}
	return s.settle(name)
}

func (s *store) extend(f DiskFile, name string, data []byte) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || !private(st, 0o022) {
		return s.distrust(name, st)
	}
	last := []byte{'\n'}
	if size := st.Size(); size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' {
		data = slices.Concat([]byte{'\n'}, data)
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// remove removes a file for good; one that is gone already is fine.
func (s *store) remove(name string) error { return remove(s.disk, name) }

// names lists a folder, sorted; a missing one is empty.
func (s *store) names(dir string) ([]string, error) {
	names, err := s.disk.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

func (s *store) exists(name string) bool {
	_, err := s.disk.Stat(name)
	return err == nil
}

// lock takes a lock that ends with what it returns, or with the process; with
// wait unset it answers unix.EWOULDBLOCK where somebody has it.
func (s *store) lock(name string, wait bool) (io.Closer, error) { return s.flock(name, false, wait) }

// lockShared takes a lock that others can share; lock waits for all of them.
func (s *store) lockShared(name string, wait bool) (io.Closer, error) {
	return s.flock(name, true, wait)
}

func (s *store) flock(name string, shared, wait bool) (io.Closer, error) {
	if err := s.mkdir(path.Dir(name)); err != nil {
		return nil, err
	}
	for {
		c, err := s.disk.Lock(name, shared, true)
		if !wait || !errors.Is(err, unix.EWOULDBLOCK) {
			return c, err
		}
		time.Sleep(lockPoll)
	}
}

// held tells whether somebody holds a lock now, alone; the test gives it back at once.
func (s *store) held(name string) bool {
	c, err := s.disk.Lock(name, true, false)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

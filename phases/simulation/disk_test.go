package simulation

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent"
)

// disk is a file system in memory that tells what is on the platter from what
// the kernel only remembers. A process that dies leaves all of it; a power cut
// leaves what was synced, and of the rest what the cut's kind says.
type disk struct {
	mu   sync.Mutex
	root *inode
}

type inode struct {
	dir     bool
	link    string
	mode    fs.FileMode
	data    []byte
	entries map[string]*inode
	locks   []*held

	isLike map[cut]likeness // of a file; nil: not known

	synced  []byte            // data on the platter
	durable map[string]*inode // names on the platter
}

// held is one flock.
type held struct {
	by     *process
	shared bool
}

// The kinds of power cuts: what of the unsynced is on the platter all the same.
type cut string

const (
	nothing cut = "nothing" // POSIX promises no more
	names   cut = "names"   // renames and new names, without the data: ext4 without delayed allocation's help
	torn    cut = "torn"    // all of it, but half of what was written last
	all     cut = "all"     // luck
)

func newDir() *inode {
	return &inode{dir: true, mode: 0o700, entries: map[string]*inode{}, durable: map[string]*inode{}}
}

func newDisk() *disk { return &disk{root: newDir()} }

// crash makes the disk what the next boot finds.
func (d *disk) crash(c cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.crash(c)
}

func (n *inode) crash(c cut) {
	n.locks = nil
	switch {
	case n.dir && c == nothing:
		n.entries = maps.Clone(n.durable)
	case n.dir:
		n.durable = maps.Clone(n.entries)
	case c == torn && len(n.data) > len(n.synced):
		n.data = n.after(c)
	case c == nothing || c == names:
		n.data = slices.Clone(n.synced)
	}
	n.isLike = nil
	n.synced = slices.Clone(n.data)
	for _, e := range n.entries {
		e.crash(c)
	}
}

// find is an inode by its name; nil where there is none.
func (d *disk) find(name string) *inode {
	n := d.root
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if part == "." {
			continue
		}
		if n == nil || !n.dir {
			return nil
		}
		n = n.entries[part]
	}
	return n
}

// mount is a disk as one process has it.
type mount struct {
	*disk
	p *process
}

var _ agent.Disk = mount{}

// do is one primitive: a point at which something may be killed, then its
// effect, unless its process is dead.
func (m mount) do(op, name string, effect func() error) error {
	if op != "" {
		m.p.point("disk " + op + " " + name)
	}
	if err := m.p.alive(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := effect(); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (m mount) at(name string, effect func(dir *inode, base string) error) func() error {
	return func() error {
		dir := m.find(path.Dir(name))
		if dir == nil || !dir.dir {
			return fs.ErrNotExist
		}
		return effect(dir, path.Base(name))
	}
}

func (m mount) Stat(name string) (info fs.FileInfo, err error) {
	_, info, err = m.Read(name)
	return info, err
}

func (m mount) Read(name string) (data []byte, info fs.FileInfo, err error) {
	err = m.do("", name, func() error {
		n := m.find(name)
		if n == nil {
			return fs.ErrNotExist
		}
		data, info = slices.Clone(n.data), n.stat(name)
		return nil
	})
	return data, info, err
}

func (m mount) List(dir string) (list []string, err error) {
	err = m.do("", dir, func() error {
		n := m.find(dir)
		if n == nil {
			return fs.ErrNotExist
		}
		list = slices.Collect(maps.Keys(n.entries))
		return nil
	})
	return list, err
}

// add gives a new inode its name.
func (m mount) add(op, name string, n *inode) error {
	return m.do(op, name, m.at(name, func(dir *inode, base string) error {
		if dir.entries[base] != nil {
			return fs.ErrExist
		}
		dir.entries[base] = n
		return nil
	}))
}

func (m mount) Create(name string) (agent.DiskFile, error) {
	n := &inode{mode: 0o600}
	return &file{m, name, n}, m.add("create", name, n)
}

func (m mount) Append(name string) (agent.DiskFile, error) {
	n := &inode{mode: 0o600}
	err := m.add("open", name, n)
	if errors.Is(err, fs.ErrExist) {
		m.mu.Lock()
		defer m.mu.Unlock()
		n, err = m.find(name), nil
	}
	return &file{m, name, n}, err
}

func (m mount) Rename(from, to string) error {
	return m.do("rename", to, m.at(from, func(src *inode, base string) error {
		n := src.entries[base]
		if n == nil {
			return fs.ErrNotExist
		}
		return m.at(to, func(dst *inode, name string) error {
			delete(src.entries, base)
			dst.entries[name] = n
			if to == "holder.json" {
				m.p.m.took(m.p, n.data)
			}
			return nil
		})()
	}))
}

func (m mount) Link(from, to string) error {
	return m.do("link", to, m.at(to, func(dst *inode, name string) error {
		n := m.find(from)
		switch {
		case n == nil:
			return fs.ErrNotExist
		case dst.entries[name] != nil:
			return fs.ErrExist
		}
		dst.entries[name] = n
		m.p.m.linked(m.p, to, n.data)
		return nil
	}))
}

func (m mount) Symlink(target, name string) error {
	return m.add("symlink", name, &inode{link: target})
}

func (m mount) Unlink(name string) error {
	return m.do("unlink", name, m.at(name, func(dir *inode, base string) error {
		if dir.entries[base] == nil {
			return fs.ErrNotExist
		}
		delete(dir.entries, base)
		return nil
	}))
}

func (m mount) Mkdir(name string) error {
	there := m.p.alive() == nil && m.has(name)
	op := "mkdir"
	if there {
		op = "" // nothing happens: no point of its own
	}
	return m.add(op, name, newDir())
}

func (m mount) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(name) != nil
}

func (m mount) SyncDir(dir string) error {
	return m.do("syncdir", dir, func() error {
		n := m.find(dir)
		if n == nil {
			return fs.ErrNotExist
		}
		if m.p.m.w.syncs("syncdir", dir) {
			n.durable = maps.Clone(n.entries)
		}
		return nil
	})
}

func (m mount) Lock(name string, shared, create bool) (c io.Closer, err error) {
	op := ""
	if name == "gate" && m.p.name == "job" { // behind it is what the job was told before
		op = "lock"
	}
	err = m.do(op, name, m.at(name, func(dir *inode, base string) error {
		n := dir.entries[base]
		if n == nil && !create {
			return fs.ErrNotExist
		}
		if n == nil {
			n = &inode{mode: 0o600}
			dir.entries[base] = n
		}
		for _, l := range n.locks {
			if !(l.shared && shared) {
				return unix.EWOULDBLOCK
			}
		}
		l := &held{m.p, shared}
		n.locks = append(n.locks, l)
		c = &flock{m.disk, n, l}
		return nil
	}))
	return c, err
}

func (m mount) Close() error { return nil }

// release drops the locks of a process that died.
func (d *disk) release(p *process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.release(p)
}

func (n *inode) release(p *process) {
	n.locks = slices.DeleteFunc(n.locks, func(l *held) bool { return l.by == p })
	for _, e := range n.entries {
		e.release(p)
	}
}

type flock struct {
	d *disk
	n *inode
	l *held
}

func (f *flock) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.locks = slices.DeleteFunc(f.n.locks, func(l *held) bool { return l == f.l })
	return nil
}

// file is an open file.
type file struct {
	m    mount
	name string
	n    *inode
}

func (f *file) Write(b []byte) (int, error) {
	err := f.m.do("write", f.name, func() error { f.n.data, f.n.isLike = slices.Concat(f.n.data, b), nil; return nil })
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *file) Sync() error {
	return f.m.do("sync", f.name, func() error {
		if f.m.p.m.w.syncs("sync", f.name) {
			f.n.synced, f.n.isLike = slices.Clone(f.n.data), nil
		}
		return nil
	})
}

func (f *file) ReadAt(b []byte, off int64) (n int, err error) {
	err = f.m.do("", f.name, func() error {
		if off >= int64(len(f.n.data)) {
			return io.EOF
		}
		n = copy(b, f.n.data[off:])
		return nil
	})
	return n, err
}

func (f *file) Stat() (info fs.FileInfo, err error) {
	err = f.m.do("", f.name, func() error { info = f.n.stat(f.name); return nil })
	return info, err
}

func (f *file) Chown(int, int) error { return f.m.p.alive() }

func (f *file) Chmod(mode fs.FileMode) error {
	return f.m.do("", f.name, func() error { f.n.mode = mode.Perm(); return nil })
}

func (f *file) Close() error { return nil }

// stat is a file's description; all files are this process's user's.
type stat struct {
	name string
	mode fs.FileMode
	dir  bool
	size int64
}

func (n *inode) stat(name string) stat {
	return stat{path.Base(name), n.mode, n.dir, int64(len(n.data))}
}

func (s stat) Name() string       { return s.name }
func (s stat) Size() int64        { return s.size }
func (s stat) ModTime() time.Time { return time.Time{} }
func (s stat) IsDir() bool        { return s.dir }
func (s stat) Sys() any           { return &syscall.Stat_t{Uid: uint32(os.Geteuid())} }

func (s stat) Mode() fs.FileMode {
	if s.dir {
		return s.mode | fs.ModeDir
	}
	return s.mode
}

var errDead = errors.New("this process is dead")

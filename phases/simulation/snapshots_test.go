package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// subvolumes is the Btrfs of a host: what lies where, by path; under w.mu.
type subvolumes struct {
	is, durable map[string]btrfs.Info
	last        uint64
}

const fsid = "00000000-0000-0000-0000-000000000001"

func (m *machine) layOut() {
	m.btrfs = &subvolumes{is: map[string]btrfs.Info{}, last: 255}
	for _, p := range []string{"/persist", "/.snapshots"} {
		check(os.MkdirAll(m.dir+p, 0o700))
		m.btrfs.add(m.dir+p, btrfs.Info{})
	}
	m.btrfs.durable = maps.Clone(m.btrfs.is)
	m.file("/proc/self/mountinfo", "1 1 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 /persist /persist rw - btrfs /dev/sdb rw\n3 1 0:2 /.snapshots /.snapshots rw - btrfs /dev/sdb rw\n")
}

func (s *subvolumes) add(path string, i btrfs.Info) {
	s.last++
	i.ID, i.UUID, i.Created = s.last, fmt.Sprintf("uuid-%d", s.last), time.Now().UTC()
	s.is[path] = i
}

// at is the subvolume that a path lies in.
func (s *subvolumes) at(p string) (string, btrfs.Info, bool) {
	for ; p != "/" && p != "."; p = path.Dir(p) {
		if i, ok := s.is[p]; ok {
			return p, i, true
		}
	}
	return "", btrfs.Info{}, false
}

// crash is what a power cut leaves.
func (m *machine) crashSnapshots(c cut) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if c == all || c == torn {
		m.btrfs.durable = maps.Clone(m.btrfs.is)
	}
	for p := range m.btrfs.is {
		if _, kept := m.btrfs.durable[p]; !kept {
			os.Remove(p)
		}
	}
	m.btrfs.is = maps.Clone(m.btrfs.durable)
}

// snapper is the host's ioctls, as one process has them.
func (p *process) snapper() *agent.Snapper {
	m := p.m
	locked := func(f func(s *subvolumes) error) error {
		if err := p.alive(); err != nil {
			return err
		}
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		return f(m.btrfs)
	}
	return &agent.Snapper{
		Open: func(name string) (f *os.File, err error) {
			err = locked(func(s *subvolumes) error {
				if _, _, ok := s.at(name); !ok {
					return fmt.Errorf("%s %w", name, btrfs.ErrNotBtrfs)
				}
				f, err = os.Open(name)
				return err
			})
			return f, err
		},
		IsRoot: func(f *os.File) bool {
			return locked(func(s *subvolumes) error {
				if _, ok := s.is[f.Name()]; !ok {
					return fs.ErrNotExist
				}
				return nil
			}) == nil
		},
		Ballast: func(*os.File) {},
		FSID:    func(*os.File) (string, error) { return fsid, nil },
		Get: func(f *os.File) (i btrfs.Info, err error) {
			err = locked(func(s *subvolumes) error { _, i, _ = s.at(f.Name()); return nil })
			return i, err
		},
		Tree: func(*os.File) (t agent.Tree, err error) {
			err = locked(func(s *subvolumes) error { t = tree{m.dir, maps.Clone(s.is)}; return nil })
			return t, err
		},
		Sync: func(*os.File) error {
			p.point("btrfs sync")
			kept := m.w.syncs("btrfs sync", "")
			return locked(func(s *subvolumes) error {
				if kept {
					s.durable = maps.Clone(s.is)
				}
				return nil
			})
		},
		Snapshot: func(src, dir *os.File, name string) error {
			p.point("btrfs snapshot " + name)
			return locked(func(s *subvolumes) error {
				_, of, _ := s.at(src.Name())
				at := filepath.Join(dir.Name(), name)
				if err := os.Mkdir(at, 0o700); err != nil {
					return err
				}
				s.add(at, btrfs.Info{ParentUUID: of.UUID, ReadOnly: true})
				return nil
			})
		},
		Destroy: func(dir *os.File, name string) error {
			p.point("btrfs destroy " + name)
			return locked(func(s *subvolumes) error {
				at := filepath.Join(dir.Name(), name)
				delete(s.is, at)
				return os.Remove(at)
			})
		},
	}
}

// tree is the list of a host's subvolumes; below the host's folder their names
// are their paths.
type tree struct {
	dir string
	is  map[string]btrfs.Info
}

func (t tree) Path(id uint64) (string, error) {
	for p, i := range t.is {
		if i.ID == id {
			return strings.TrimPrefix(p, t.dir+"/"), nil
		}
	}
	return "", fs.ErrNotExist
}

func (t tree) Find(uuid string) (uint64, bool) {
	for _, i := range t.is {
		if i.UUID == uuid {
			return i.ID, true
		}
	}
	return 0, false
}

func (t tree) Below(uint64) []string { return nil }

func (t tree) Inside(id, other uint64) bool {
	p, err1 := t.Path(id)
	q, err2 := t.Path(other)
	return err1 == nil && err2 == nil && (p == q || strings.HasPrefix(p, q+"/"))
}

// provider is the plugin that takes snapshots: a process of its own, which
// forgets all it knows when it dies.
type provider struct{ c *controller }

var errGone = errors.New("the plugin went away")

// point is where the plugin may die.
func (p provider) point(label string) error {
	if p.c.alive() == nil {
		p.c.w.point("plugin", label, nil)
	}
	if p.c.w.died() {
		return errGone
	}
	return p.c.alive()
}

func (w *world) died() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := w.gone
	w.gone = false // the next call starts another
	return gone
}

func (p provider) ask(ctx context.Context, req phases.SnapshotRequest, op string, args, result any) error {
	raw, _ := json.Marshal(args)
	out, err := req.Operate(ctx, op, raw)
	if err == nil {
		err = json.Unmarshal(out, result)
	}
	return err
}

func paths(req phases.SnapshotRequest) []string {
	return slices.Sorted(maps.Keys(req.Settings.Subvolumes))
}

func (p provider) Plan(ctx context.Context, req phases.SnapshotRequest) (plan phases.SnapshotPlan, err error) {
	if err := p.point("plan"); err != nil {
		return plan, err
	}
	var d agent.Discovery
	if err := p.ask(ctx, req, agent.OpDiscover, agent.DiscoverArgs{Paths: paths(req)}, &d); err != nil {
		return plan, err
	}
	for _, v := range d.Volumes {
		if v.Problem != "" {
			plan.Problems = append(plan.Problems, v.Problem)
		}
	}
	return plan, p.point("planned")
}

// Create answers with the set that an earlier try has taken, if there is one.
func (p provider) Create(ctx context.Context, req phases.SnapshotRequest) (set agent.SnapshotSet, _ []agent.Operation, err error) {
	if err := p.point("create"); err != nil {
		return set, nil, err
	}
	args := agent.SnapshotArgs{Run: req.Run, Stamp: "20000101T000000Z", Paths: paths(req)}
	err = p.ask(ctx, req, agent.OpSnapshot, args, &set)
	var failed *agent.Error
	if errors.As(err, &failed) && failed.Code == "exists" {
		err = p.ask(ctx, req, agent.OpSnapshots, agent.DiscoverArgs{Paths: paths(req)}, &set.Snapshots)
	}
	if err != nil {
		return set, nil, err
	}
	return set, nil, p.point("created")
}

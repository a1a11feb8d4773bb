package simulation

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
)

// folder is a folder of the host's system: real files below the host's Prefix,
// with the same points as the agent's own disk, and a memory of what is on the
// platter.
type folder struct {
	agent.Disk
	p   *process
	dir string
}

func (f folder) step(op, name string, effect func() error) error {
	rel := strings.TrimPrefix(path.Join(f.dir, name), f.p.m.dir)
	f.p.point("file " + op + " " + rel)
	if err := f.p.alive(); err != nil {
		return err
	}
	f.p.m.touch()
	return effect()
}

func (f folder) Create(name string) (d agent.DiskFile, err error) {
	err = f.step("create", name, func() error { d, err = f.Disk.Create(name); return err })
	return hostFile{d, f, name}, err
}

func (f folder) Symlink(target, name string) error {
	return f.step("symlink", name, func() error { return f.Disk.Symlink(target, name) })
}

func (f folder) Rename(from, to string) error {
	return f.step("rename", to, func() error { return f.Disk.Rename(from, to) })
}

func (f folder) Unlink(name string) error {
	return f.step("unlink", name, func() error {
		f.p.m.released(path.Join(f.dir, name))
		return f.Disk.Unlink(name)
	})
}

func (f folder) SyncDir(name string) error {
	return f.step("syncdir", name, func() error {
		dir := path.Join(f.dir, name)
		if f.p.m.w.syncs("syncdir", strings.TrimPrefix(dir, f.p.m.dir)) {
			f.p.m.settle(dir)
		}
		return nil
	})
}

type hostFile struct {
	agent.DiskFile
	f    folder
	name string
}

func (h hostFile) Write(b []byte) (n int, err error) {
	err = h.f.step("write", h.name, func() error { n, err = h.DiskFile.Write(b); return err })
	return n, err
}

func (h hostFile) Sync() error { return h.f.step("sync", h.name, func() error { return nil }) }

// platter is what a power cut leaves of the host's folders: by folder, what is
// in it. A link is kept as "->" and its target.
type platter map[string]map[string]string

func (m *machine) settle(dir string) {
	list := readDir(dir)
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.platter[dir] = list
	m.dirty = true
}

func readDir(dir string) map[string]string {
	list := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(at)
			list[e.Name()] = "->" + target
		case e.Type().IsRegular():
			data, _ := os.ReadFile(at)
			list[e.Name()] = string(data)
		}
	}
	return list
}

// restore makes the host's folders what is on the platter.
func (m *machine) restore() {
	for dir, want := range m.platter {
		is := readDir(dir)
		for name := range is {
			if _, keep := want[name]; !keep {
				os.Remove(path.Join(dir, name))
			}
		}
		for name, text := range want {
			if text == is[name] {
				continue
			}
			at := path.Join(dir, name)
			os.Remove(at)
			if target, link := strings.CutPrefix(text, "->"); link {
				check(os.Symlink(target, at))
			} else {
				check(os.WriteFile(at, []byte(text), 0o644))
			}
		}
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

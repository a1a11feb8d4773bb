package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// volumes is a whole Btrfs, whatever part of it is mounted where: its top level
// on a mount of this process alone. All work on names is done through it, since
// no rename goes from one mount to another.
type volumes struct {
	FSID, Device string
	dev          string // as in mountinfo
	readOnly     bool   // all of it, whatever a mount's own options are
	top          btrfs.Volume
	tree         *btrfs.Tree
}

func (a *agent) volumes(fsid string) (*volumes, error) {
	for _, m := range a.mounts() {
		if m.FS != "btrfs" || fsidAt(m.Path) != fsid {
			continue
		}
		top, err := btrfs.Mount(m.Source, "")
		if err != nil {
			return nil, err
		}
		v := &volumes{FSID: fsid, Device: m.Source, dev: m.Dev, top: top, readOnly: m.Super == "ro" || strings.HasPrefix(m.Super, "ro,")}
		if err := v.read(); err != nil {
			v.close()
			return nil, err
		}
		return v, nil
	}
	return nil, &Error{Code: "not-found", Message: "no Btrfs " + fsid + " is mounted on this host"}
}

func (v *volumes) read() (err error) {
	v.tree, err = btrfs.ReadTree(v.top.File)
	return err
}

func (v *volumes) close() { v.top.Close() }

// writable refuses what would change a file system that is mounted read-only.
func (v *volumes) writable() error {
	if v.readOnly {
		return &Error{Code: "invalid", Message: v.Device + " is mounted read-only: no snapshot on it can be made or deleted",
			Hint: []string{"findmnt --source " + quote(v.Device), "mount -o remount,rw MOUNT"}}
	}
	return nil
}

// id is the subvolume that has a name now, 0 if none has.
func (v *volumes) id(name string) uint64 {
	f, err := btrfs.At(v.top.File, name)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := btrfs.Get(f)
	if err != nil || !btrfs.IsRoot(f) {
		return 0
	}
	return info.ID
}

// at opens the subvolume with an id.
func (v *volumes) at(id uint64) (*os.File, string, error) {
	name, err := v.tree.Path(id)
	if err != nil {
		return nil, name, err
	}
	f, err := btrfs.At(v.top.File, name)
	return f, name, err
}

// find is a snapshot by its uuid: its path may be another by now.
func (v *volumes) find(s Snapshot) (*os.File, btrfs.Info, error) {
	id, ok := v.tree.Find(s.UUID)
	if !ok {
		return nil, btrfs.Info{}, &Error{Code: "not-found", Message: fmt.Sprintf("the snapshot %s (%s) is not there any more", s.Path, s.UUID)}
	}
	f, _, err := v.at(id)
	if err != nil {
		return nil, btrfs.Info{}, err
	}
	info, err := btrfs.Get(f)
	return f, info, err
}

// in opens the folder of a name below the top level.
func (v *volumes) in(name string) (*os.File, string, error) {
	f, err := btrfs.At(v.top.File, above(name))
	return f, filepath.Base(name), err
}

// above is the folder of a name below the top level, "" for that itself.
func above(name string) string {
	if dir := filepath.Dir(name); dir != "." {
		return dir
	}
	return ""
}

func (v *volumes) mounts(list []mount) (own []mount) {
	for _, m := range list {
		if m.FS == "btrfs" && m.Dev == v.dev {
			own = append(own, m)
		}
	}
	return own
}

// path is where something below the top level can be reached, "" if nowhere.
func (v *volumes) path(mounts []mount, name string) string {
	best := mount{}
	for _, m := range v.mounts(mounts) {
		if within("/"+name, m.Root) && len(m.Root) > len(best.Root) {
			best = m
		}
	}
	if best.Path == "" {
		return ""
	}
	return filepath.Join(best.Path, strings.TrimPrefix("/"+name, strings.TrimSuffix(best.Root, "/")))
}

// mounts are the host's; a test's fake host may have some of its own.
func (a *agent) mounts() []mount {
	if fake := a.host("/proc/self/mountinfo"); exists(fake) {
		return readMounts(fake)
	}
	return readMounts("/proc/self/mountinfo")
}

func fsidAt(path string) string {
	f, err := btrfs.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	id, _ := btrfs.FSID(f)
	return id
}

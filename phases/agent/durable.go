package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// content is what a file is to be.
type content struct {
	data  []byte
	mode  uint32
	owner *Owner // nil: the agent's
}

// replace makes a name something else as a whole, and durable: a reader, and a
// power cut at any moment, find either the old or the new. With exclusive the
// name must be free: of several that try at once one succeeds, the others get
// fs.ErrExist, and what they find then is durable as well.
func replace(d Disk, name string, exclusive bool, create func(d Disk, temp string) error) error {
	temp := path.Join(path.Dir(name), ".new."+token())
	err := create(d, temp)
	switch {
	case err == nil && exclusive:
		err = d.Link(temp, name)
	case err == nil:
		err = d.Rename(temp, name)
	}
	if err != nil || exclusive {
		_ = d.Unlink(temp)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return firstOf(d.SyncDir(path.Dir(name)), err)
}

func (c content) create(d Disk, temp string) error {
	f, err := d.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(c.data)
	if c.owner != nil {
		err = errors.Join(err, f.Chown(c.owner.UID, c.owner.GID))
	}
	// Chmod after chown, which clears set-user-ID bits.
	return errors.Join(err, f.Chmod(fs.FileMode(c.mode)), f.Sync(), f.Close())
}

// remove removes a file or link, durable; one that is gone already is fine.
func remove(d Disk, name string) error {
	if err := d.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	if err := d.SyncDir(path.Dir(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// disk opens a folder of the host; with follow also one that a link leads to.
func (o Options) disk(dir string, follow bool) (Disk, error) {
	if o.Disk != nil {
		return o.Disk(dir)
	}
	return openDisk(dir, follow)
}

// inDir does something in a folder of the host.
func (a *agent) inDir(dir string, do func(Disk) error) error {
	d, err := a.disk(dir, true)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(d)
}

// syncDir makes the names in a folder of the host durable.
func (a *agent) syncDir(dir string) error {
	return a.inDir(dir, func(d Disk) error { return d.SyncDir(".") })
}

func (a *agent) linkAt(dir, name, target string) error {
	return a.inDir(dir, func(d Disk) error {
		return replace(d, name, false, func(d Disk, temp string) error { return d.Symlink(target, temp) })
	})
}

// removeAt removes a file or link of the host, durable; one that is gone already is fine.
func (a *agent) removeAt(dir, name string) error {
	err := a.inDir(dir, func(d Disk) error { return remove(d, name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func token() string { return rand.Text()[:12] }

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

const holdsFile = "holds.json"

// holdsOf is who holds what, and why, by the uuids of snapshots.
func holdsOf(s *store) (map[string]map[string]string, error) {
	holds := map[string]map[string]string{}
	return holds, unlessMissing(s.readJSON(holdsFile, &holds))
}

// unlessMissing is for a guard: what is there and cannot be read may forbid
// everything.
func unlessMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// deleteSnapshots deletes what nothing can want any more, and says of the rest
// why it stays. The kernel would delete all of it, also what is mounted, also
// the root of the running system.
func (a *agent) deleteSnapshots(ctx context.Context, args DeleteArgs) ([]Deleted, error) {
	s, err := a.store(true)
	if err != nil {
		return nil, err
	}
	list, made := []Deleted{}, a.made()
	w := &work{agent: a, volumes: map[string]*volumes{}}
	defer w.end()
	for _, snap := range args.Snapshots {
		v, err := w.on(snap.FSID)
		if err != nil {
			return list, err
		}
		d := Deleted{UUID: snap.UUID, State: "gone", v: v}
		if id, ok := v.tree.Find(snap.UUID); ok {
			d.State, d.id = "later", id
			if err := a.delete(s, v, id, made); err != nil {
				d.State, d.Why = "refused", err.Error()
			}
		}
		list = append(list, d)
		a.at("deleted")
	}
	return list, w.freed(ctx, list, args.Wait)
}

// delete deletes one subvolume, by its id: a name could mean another one by now.
func (a *agent) delete(s *store, v *volumes, id uint64, made map[string]Snapshot) error {
	if err := v.writable(); err != nil {
		return err
	}
	if err := a.deletable(s, v, id, made); err != nil {
		return err
	}
	err := btrfs.DestroyID(v.top.File, id)
	if errors.Is(err, unix.EPERM) {
		err = errors.New("it is being sent, or has an active swap file: try later")
	}
	return err
}

// deletable is the guard.
func (a *agent) deletable(s *store, v *volumes, id uint64, made map[string]Snapshot) error {
	f, name, err := v.at(id)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := btrfs.Get(f)
	if err != nil {
		return err
	}
	snap, ours := made[info.UUID]
	nested, err := v.tree.Nested(id)
	if err != nil {
		return err
	}
	switch {
	case !ours:
		return fmt.Errorf("/%s was not made by deployer on this host (%s)", name, makerOf(name))
	case moved(snap.Name, name):
		return fmt.Errorf("it is /%s by now, not /%s: somebody may use it as that", name, snap.Name)
	case !snap.Replaced && !info.ReadOnly:
		return errors.New("somebody has made it writable, and may use it")
	case v.tree.Default == id:
		return errors.New("it is the default subvolume: the next boot may be from it")
	case len(nested) > 0:
		return fmt.Errorf("%d subvolumes are nested in it", len(nested))
	}
	holds, err := holdsOf(s)
	if err != nil {
		return fmt.Errorf("who holds it cannot be told: %w", err)
	}
	if by := slices.Sorted(maps.Keys(holds[info.UUID])); len(by) > 0 {
		return fmt.Errorf("held by %s: %s", by[0], holds[info.UUID][by[0]])
	}
	run, err := wanted(s, snap, info.UUID)
	if err != nil {
		return fmt.Errorf("whether a run may still go back to it cannot be told: %w", err)
	}
	if run != "" {
		return fmt.Errorf("run %s may still go back to it", run)
	}
	return v.unused(f, name)
}

// moved tells whether a subvolume is elsewhere than where it was recorded: then
// somebody has taken it for something. The folder's own parents may have another
// name by now, if they were restored or the folder's subvolume moved along.
func moved(recorded, name string) bool {
	return filepath.Base(recorded) != filepath.Base(name) || filepath.Base(filepath.Dir(recorded)) != filepath.Base(filepath.Dir(name))
}

// unused is nil if nobody has a subvolume mounted, or anything of it open.
func (v *volumes) unused(f *os.File, name string) error {
	dev, ok := devOf(f.Stat())
	mounted := mount{Root: "/" + name, Dev: v.dev}
	for _, m := range v.mounts(readMounts("/proc/self/mountinfo")) {
		if within(m.Root, mounted.Root) {
			return fmt.Errorf("it is mounted at %s", m.Path)
		}
	}
	if users := usersOf(map[uint64]bool{dev: ok}, []mount{mounted}); len(users) > 0 {
		return errors.New(users[0].String())
	}
	return nil
}

// wanted is an open lane that has a snapshot in its recipe, or a restore of it
// that is under way.
func wanted(s *store, snap Snapshot, uuid string) (string, error) {
	runs, err := s.names("runs")
	if err != nil {
		return "", err
	}
	for _, run := range runs {
		if err := unlessMissing(s.readJSON(runFile(run, "guard.json"), new(Guard))); err != nil {
			return "", err // it may have been taken up again
		}
		if c := closingOf(s, run); c != nil && c.Outcome != "stuck" {
			continue
		}
		if run == snap.Run && snap.Replaced {
			return run, nil
		}
		var r Recipe
		if err := unlessMissing(s.readJSON(runFile(run, "recipe.json"), &r)); err != nil {
			return "", err
		}
		all := r.Snapshots
		for _, op := range r.Operations {
			if op.Data != nil {
				all = append(all, op.Data.Snapshots...)
			}
		}
		if slices.ContainsFunc(all, func(s Snapshot) bool { return s.UUID == uuid }) {
			return run, nil
		}
	}
	return "", nil
}

// freed makes deletions durable and waits for the cleaner, which gives the space
// back: it wakes at a commit, and what it did counts after another one.
func (w *work) freed(ctx context.Context, list []Deleted, wait float64) error {
	for deadline := time.Now().Add(time.Duration(wait * float64(time.Second))); ; {
		if err := errors.Join(w.sync(), w.sync()); err != nil {
			return err
		}
		left := false
		for _, v := range w.volumes {
			if err := v.read(); err != nil {
				return err
			}
		}
		for i, d := range list {
			if d.State == "later" && !d.v.tree.Cleaning(d.id) {
				list[i].State = "freed"
			}
			left = left || list[i].State == "later"
		}
		if !left || time.Now().After(deadline) || pause(ctx, 20*time.Millisecond) != nil {
			return nil
		}
	}
}

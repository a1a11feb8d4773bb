package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// restoration is what lies on the disk of a restore-data before it touches
// anything. How far it came is read from the file systems: every subvolume
// keeps its id, whatever its name.
type restoration struct {
	Data
	Run     string    `json:"run"`
	State   string    `json:"state"`
	Members []*member `json:"members"`
	Mounts  []lost    `json:"mounts,omitempty"` // what is unmounted meanwhile, in the order of mounting
	Units   []string  `json:"units,omitempty"`  // what was active and is stopped meanwhile
	Reboot  bool      `json:"reboot,omitempty"` // it is the running root: the next boot has it
	Boot    string    `json:"boot,omitempty"`   // in which the last of that was done
	Began   time.Time `json:"began"`
	Gone    []string  `json:"gone,omitempty"`  // mounts that are not back, in words
	Below   []string  `json:"below,omitempty"` // what was written where nothing was mounted, in words
	Left    []left    `json:"left,omitempty"`  // copies that were taken back, and may hold what somebody wrote
}

const (
	dataBegun  = "begun"
	dataStays  = "stays" // all done, but units are still stopped
	dataDone   = "done"
	dataUndone = "undone"
)

// member is one subvolume of a restoration. Aside is the name of the copy of
// the snapshot before the exchange, and of what was replaced after it.
type member struct {
	FSID   string            `json:"fsid"`
	Name   string            `json:"name"`
	Aside  string            `json:"aside"`
	UUID   string            `json:"uuid"`           // of the snapshot
	Live   uint64            `json:"live,omitempty"` // what is to be replaced; 0: nothing was there
	Kept   string            `json:"kept,omitempty"` // its uuid
	Copy   uint64            `json:"copy,omitempty"`
	Nested map[uint64]string `json:"nested,omitempty"` // what moves along
	Source string            `json:"source"`
	From   string            `json:"from,omitempty"` // it is no copy of UUID, but that itself, which was here
	Used   bool              `json:"used,omitempty"` // the copy had the name when a try after its own began: who knows what was written to it
}

// left is a copy that had the name for a while, and lies aside again.
type left struct {
	FSID  string    `json:"fsid"`
	Name  string    `json:"name"`
	Aside string    `json:"aside"`
	UUID  string    `json:"uuid"`
	Since time.Time `json:"since"`
}

// lost is a mount that has to come back.
type lost struct {
	mount
	FSID string
}

func dataFile(run string, d Data) string {
	raw, _ := json.Marshal(d.Snapshots)
	return runFile(run, "data-"+sum(raw)[:16]+".json")
}

// doData makes subvolumes what they were in snapshots. It can be cut short
// anywhere and done again; what fails is taken back.
func (a *agent) doData(ctx context.Context, run string, op Operation) (effect, error) {
	if op.Data == nil || len(op.Data.Snapshots) == 0 {
		return effect{}, invalid("nothing to restore was named")
	}
	s, err := a.runStore(run)
	if err != nil {
		return effect{}, err
	}
	alone, err := s.lock(runFile(run, "data.alive"), true)
	if err != nil {
		return effect{}, err
	}
	defer alone.Close()
	file := dataFile(run, *op.Data)
	r := load[restoration](s, file)
	w := &work{agent: a, store: s, file: file, volumes: map[string]*volumes{}}
	defer w.end()
	if r != nil && (r.State == dataDone || r.State == dataStays) && (w.inPlace(r) || r.Reboot && r.Boot != a.bootID()) {
		return effect{already: true, message: w.said(r)}, w.finish(ctx, r)
	}
	if r == nil || r.State != dataBegun {
		if r != nil { // it was replaced again since: what it has kept is told of still
			if err := s.writeJSON(strings.TrimSuffix(file, ".json")+"-"+r.Began.Format(stampForm)+".json", r); err != nil {
				return effect{}, err
			}
		}
		for _, out := range a.settle(ctx, s, run, file) {
			if out.State == opFailed {
				return effect{}, &Error{Code: "busy", Message: out.Message, Hint: out.Hint}
			}
		}
		if r, err = w.plan(ctx, run, *op.Data); err != nil {
			return effect{}, err
		}
		if len(r.Members) == 0 {
			return effect{already: true}, nil
		}
		if err := s.writeJSON(file, r); err != nil {
			return effect{}, err
		}
	} else if err := w.meet(r); err != nil {
		return effect{}, err
	}
	if err := w.carry(ctx, r); err != nil {
		err = errors.Join(err, w.takeBack(ctx, r))
		for _, text := range w.left(r) {
			err = errors.Join(err, errors.New(text))
		}
		return effect{}, err
	}
	return effect{message: w.said(r)}, w.finish(ctx, r)
}

// where is a name below the top level as somebody finds it.
func (w *work) where(v *volumes, name string) string {
	return cmp.Or(v.path(w.mounts(), name), "/"+name)
}

// settle takes back what other restorations of a run have left half done: a
// host is never restored in part without saying so.
func (a *agent) settle(ctx context.Context, s *store, run string, but ...string) (list []Outcome) {
	for file, r := range restorations(s, run) {
		if r.State != dataBegun || slices.Contains(but, file) {
			continue
		}
		w := &work{agent: a, store: s, file: file, volumes: map[string]*volumes{}}
		err := w.meet(r)
		if err == nil {
			err = w.takeBack(ctx, r)
		}
		out := Outcome{Op: Operation{Op: DoData}, State: opDone, Message: strings.Join(w.left(r), "; ")}
		if err != nil {
			out.State, out.Hint = opFailed, a.hint(run, Operation{Op: DoData, Data: &r.Data})
			out.Message = strings.Join(append([]string{fmt.Sprintf("a restore of /%s was cut off, %v", r.Members[0].Name, err)}, w.left(r)...), "; ")
			var said *Error
			if errors.As(err, &said) {
				out.Hint = append(slices.Clone(said.Hint), out.Hint...)
			}
		}
		list = append(list, out)
		w.end()
	}
	return list
}

// left says where is what was written to copies that were taken back, and to
// nothing that goes back.
func (w *work) left(r *restoration) []string {
	list := slices.Clone(r.Below)
	for _, l := range r.Left {
		if v, err := w.on(l.FSID); err == nil {
			list = append(list, fmt.Sprintf("%s had been in place since an earlier try: what was written to it is kept as %s", w.where(v, l.Name), w.where(v, l.Aside)))
		}
	}
	return list
}

func (w *work) said(r *restoration) string {
	var kept []string
	_ = w.each(r, false, func(v *volumes, m *member) error {
		if m.Live != 0 {
			kept = append(kept, fmt.Sprintf("%s: what it was is kept as %s", w.where(v, m.Name), w.where(v, m.Aside)))
		}
		return nil
	})
	text := strings.Join(slices.Concat(kept, w.left(r), r.Gone), "; ")
	if r.Reboot && r.Boot == w.bootID() {
		text += "; reboot now: until then the replaced root runs, and what is written to it is not kept in the restored one"
	}
	return text
}

// rootDue tells whether a root that the run has put in place waits for the next
// boot. After that boot it is to be what runs; but a system that makes its root
// anew at each boot has put away again what it got back.
func (a *agent) rootDue(run string) (bool, error) {
	s, err := a.store(false)
	if err != nil || run == "" {
		return false, nil
	}
	var last *restoration
	for _, r := range restored(s, run) {
		if r.Reboot && (last == nil || r.Began.After(last.Began)) {
			last = r
		}
	}
	if last == nil {
		return false, nil
	}
	w := &work{agent: a, volumes: map[string]*volumes{}}
	defer w.end()
	runs, err := a.fs.describe(a.root())
	fsid := a.fsidOf("/")
	is := func(m *member) bool { return m.FSID == fsid && m.Copy == runs.ID }
	switch {
	case err != nil:
		return false, err
	case last.Boot == a.bootID(): // also where only another member was put in place in it
		return true, nil
	case slices.ContainsFunc(last.Members, is):
		return false, nil
	case last.Itself && !w.inPlace(last):
		return false, nil
	}
	return false, fmt.Errorf("the host has booted since /%s was put in place, but runs from another root: is it made anew at each boot?", last.Members[0].Name)
}

// restorations is what was restored in a run, or begun to be, by its files.
func restorations(s *store, run string) iter.Seq2[string, *restoration] {
	return func(yield func(string, *restoration) bool) {
		files, _ := s.names("runs/" + run)
		for _, name := range files {
			if !strings.HasPrefix(name, "data-") {
				continue
			}
			if r := load[restoration](s, runFile(run, name)); r != nil && !yield(runFile(run, name), r) {
				return
			}
		}
	}
}

// restored is those that took place.
func restored(s *store, run string) iter.Seq2[string, *restoration] {
	return func(yield func(string, *restoration) bool) {
		for file, r := range restorations(s, run) {
			if (r.State == dataDone || r.State == dataStays) && !yield(file, r) {
				return
			}
		}
	}
}

// doStart starts what restorations of the run left stopped.
func (a *agent) doStart(ctx context.Context, run string, _ Operation) (effect, error) {
	s, err := a.runStore(run)
	if err != nil {
		return effect{}, err
	}
	done := effect{already: true}
	for file, r := range restored(s, run) {
		if r.State != dataStays {
			continue
		}
		w := &work{agent: a, store: s, file: file}
		a.dropUnknown(ctx, r)
		r.Stay, done = false, effect{message: "started " + strings.Join(r.Units, ", ")}
		err = errors.Join(err, w.finish(ctx, r))
	}
	return done, err
}

// dropUnknown drops units that only the other system had: what runs now has none of
// that name to start.
func (a *agent) dropUnknown(ctx context.Context, r *restoration) {
	r.Units = slices.DeleteFunc(r.Units, func(u string) bool {
		p, err := a.Units.Show(ctx, u, "LoadState")
		return err == nil && p["LoadState"] == "not-found"
	})
}

// work is one process's hands on a restoration.
type work struct {
	*agent
	store   *store
	file    string
	volumes map[string]*volumes
}

func (w *work) end() {
	for _, v := range w.volumes {
		v.close()
	}
}

func (w *work) on(fsid string) (*volumes, error) {
	if v := w.volumes[fsid]; v != nil {
		return v, nil
	}
	v, err := w.agent.volumes(fsid)
	if err == nil {
		w.volumes[fsid] = v
	}
	return v, err
}

// each does something to every member, backwards if asked to.
func (w *work) each(r *restoration, back bool, do func(*volumes, *member) error) error {
	list := slices.Clone(r.Members)
	if back {
		slices.Reverse(list)
	}
	var errs []error
	for _, m := range list {
		v, err := w.on(m.FSID)
		if err == nil {
			err = do(v, m)
		}
		if errs = append(errs, err); err != nil && !back {
			break
		}
	}
	return errors.Join(errs...)
}

func (w *work) inPlace(r *restoration) bool {
	return w.each(r, false, func(v *volumes, m *member) error {
		if id := v.id(m.Name); id == 0 || id != m.Copy {
			return fs.ErrNotExist
		}
		return nil
	}) == nil
}

// meet looks at what a try before this one has left, before anything moves. A
// copy that is in place by then may have been worked with for hours, since a boot
// say: it is never deleted, nor taken for a fresh one.
func (w *work) meet(r *restoration) error {
	used := false
	err := w.each(r, false, func(v *volumes, m *member) error {
		m.Used = m.Used || m.From == "" && m.Copy != 0 && v.id(m.Name) == m.Copy
		used = used || m.Used
		return nil
	})
	if err != nil || !used {
		return err
	}
	if err := w.leave(r); err != nil {
		return err
	}
	err = w.store.writeJSON(w.file, r)
	w.at("met")
	return err
}

// leave notes used copies that lie aside as what they are. The next one gets
// another name.
func (w *work) leave(r *restoration) error {
	return w.each(r, true, func(v *volumes, m *member) error {
		if !m.Used || v.id(m.Aside) != m.Copy {
			return nil
		}
		f, err := btrfs.At(v.top.File, m.Aside)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := btrfs.Get(f)
		if err != nil {
			return err
		}
		next, err := w.aside(v, r, m)
		if err == nil {
			r.Left = append(r.Left, left{m.FSID, m.Name, m.Aside, info.UUID, time.Now().UTC()})
			m.Aside, m.Copy, m.Used = next, 0, false
		}
		return err
	})
}

// carry does the whole of it, or the rest of it.
func (w *work) carry(ctx context.Context, r *restoration) error {
	if err := w.each(r, false, spared(w.prepare)); err != nil {
		return err
	}
	w.at("prepared")
	if err := w.clear(ctx, r); err != nil {
		return err
	}
	w.at("cleared")
	// All within one moment, so that they mostly get into one transaction.
	err := w.each(r, false, spared(func(v *volumes, m *member) error { return w.forward(v, m, r.Reboot) }))
	if err != nil {
		return err
	}
	w.at("exchanged")
	if err := w.sync(); err != nil {
		return err
	}
	if err := w.remount(r); err != nil {
		return err
	}
	w.at("mounted")
	r.State = dataStays
	return w.store.writeJSON(w.file, r)
}

// finish starts exactly what was stopped, unless that is left for later.
func (w *work) finish(ctx context.Context, r *restoration) error {
	if r.Stay || r.State == dataDone {
		return nil
	}
	if err := w.start(ctx, r.Units); err != nil {
		return err
	}
	r.State = dataDone
	return w.store.writeJSON(w.file, r)
}

func (a *agent) start(ctx context.Context, units []string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := a.doUnits(ctx, "", Operation{Units: units})
	return err
}

// prepare makes the writable copy that is to take the name. One that a try
// before this has left is as good: nobody has seen it.
func (w *work) prepare(v *volumes, m *member) error {
	if m.Copy != 0 && (v.id(m.Name) == m.Copy || v.id(m.Aside) == m.Copy) {
		return nil
	}
	if m.From != "" {
		return rename(v, m.From, m.Aside)
	}
	f, info, err := v.find(Snapshot{UUID: m.UUID, Path: m.Source})
	if err != nil {
		return err
	}
	defer f.Close()
	dir, base, err := v.in(m.Aside)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := btrfs.Copy(f, dir, base); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	copied, err := btrfs.At(v.top.File, m.Aside)
	if err != nil {
		return err
	}
	defer copied.Close()
	is, err := btrfs.Get(copied)
	if err == nil && (is.ReadOnly || is.ParentUUID != info.UUID || is.ID == m.Live) {
		err = fmt.Errorf("/%s is there already and no writable copy of %s: it is left as it is", m.Aside, m.Source)
	}
	if err == nil { // what is no copy may be all that is left of what was replaced
		m.Copy = is.ID
	}
	return err
}

// forward makes the exchange, and moves along what is nested. In which order
// they are found is how a cut-short one goes on.
func (w *work) forward(v *volumes, m *member, running bool) error {
	switch v.id(m.Name) {
	case m.Copy:
	case m.Live:
		if m.Live == 0 {
			_ = unix.Unlinkat(int(v.top.Fd()), m.Name, unix.AT_REMOVEDIR) // what a snapshot has of a nested one
			if err := rename(v, m.Aside, m.Name); err != nil {
				return err
			}
			break
		}
		if err := btrfs.Exchange(v.top.File, m.Name, m.Aside); err != nil {
			return err
		}
	default:
		return fmt.Errorf("/%s is neither what it was nor the copy of %s: somebody else changed it", m.Name, m.Source)
	}
	w.at("exchanged " + m.Name)
	for id, at := range m.Nested {
		old, now := filepath.Join(m.Aside, at), filepath.Join(m.Name, at)
		if err := w.along(v, id, old, now); err != nil {
			return err
		}
		if !running {
			continue
		}
		if err := w.stand(v, id, m.Aside, at, now); err != nil {
			return err
		}
	}
	return nil
}

// along moves a nested subvolume, if it is where it is moved from.
func (w *work) along(v *volumes, id uint64, from, to string) error {
	if v.id(from) != id {
		return nil
	}
	if err := parents(v, filepath.Dir(from), filepath.Dir(to)); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(v.top.Fd()), to, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot move the subvolume /%s along: /%s is in its place: %w", from, to, err)
	}
	return rename(v, from, to)
}

// stand gives the running system what moved along with its root back at its old
// place, until the next boot. After that boot nothing shows what was replaced as
// what it was: through the folder of snapshots it is an archive, for nothing live.
func (w *work) stand(v *volumes, id uint64, aside, at, now string) error {
	old, mounts := filepath.Join(aside, at), w.mounts()
	seen := v.path(mounts, old)
	if seen == "" || v.id(now) != id || w.mountedAt(v, seen) || !within(mountOf(mounts, seen).Root, "/"+aside) {
		return nil
	}
	if err := unix.Mkdirat(int(v.top.Fd()), old, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	m, err := btrfs.Mount(v.Device, now)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Attach("", seen, "relatime", "")
}

// parents makes the folders that a moved subvolume needs, with their owners and modes.
func parents(v *volumes, from, to string) error {
	if _, err := os.Lstat(v.proc(to)); err == nil || to == "." {
		return nil
	}
	if err := parents(v, filepath.Dir(from), filepath.Dir(to)); err != nil {
		return err
	}
	st, err := os.Lstat(v.proc(from))
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return errors.Join(unix.Mkdirat(int(v.top.Fd()), to, 0o700),
		unix.Fchownat(int(v.top.Fd()), to, int(sys.Uid), int(sys.Gid), unix.AT_SYMLINK_NOFOLLOW),
		unix.Fchmodat(int(v.top.Fd()), to, sys.Mode&0o7777, 0)) // past the umask
}

// proc is a name below the top level as a path of this process.
func (v *volumes) proc(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", v.top.Fd(), name)
}

func rename(v *volumes, from, to string) error {
	if err := unix.Renameat2(int(v.top.Fd()), from, int(v.top.Fd()), to, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("cannot rename /%s to /%s: %w", from, to, err)
	}
	return nil
}

func (w *work) sync() error {
	for _, v := range w.volumes {
		if err := btrfs.Sync(v.top.File); err != nil {
			return err
		}
	}
	return nil
}

// takeBack is the way back from one that failed: what was exchanged goes back,
// what was unmounted and stopped comes again. The copies go, but for those that
// somebody may have written to: see meet. What cannot go back
// stays stopped: nobody is to work with data that is half restored.
func (w *work) takeBack(ctx context.Context, r *restoration) error {
	ctx = context.WithoutCancel(ctx)
	r.State = dataBegun
	err := w.evict(ctx, r)
	if err == nil {
		err = w.withdraw(r)
	}
	if err == nil {
		err = w.each(r, true, func(v *volumes, m *member) error { return w.backward(v, m, r.Reboot) })
	}
	w.at("moved back")
	err = errors.Join(err, w.sync(), w.remount(r), w.leave(r))
	if err = errors.Join(err, w.runsOnCopy(r)); err == nil {
		w.dropUnknown(ctx, r)
		err = w.start(ctx, r.Units)
	}
	w.at("started again")
	if err != nil {
		err = fmt.Errorf("and it could not be taken back: %w", err)
	} else {
		r.State = dataUndone
		err = w.each(r, true, dropCopy) // backwards: all of them
	}
	w.at("dropped")
	return errors.Join(err, w.store.writeJSON(w.file, r))
}

// runsOnCopy is an error where a boot since the exchange has made a copy the
// running root. It stays that, whatever its name, until the next boot.
func (w *work) runsOnCopy(r *restoration) error {
	if !r.Reboot {
		return nil
	}
	runs, err := w.fs.describe(w.root())
	fsid := w.fsidOf("/")
	is := slices.ContainsFunc(r.Members, func(m *member) bool { return m.FSID == fsid && m.Copy == runs.ID })
	if err == nil && (is || slices.ContainsFunc(r.Left, func(l left) bool { return l.UUID == runs.UUID })) {
		err = &Error{Code: "busy", Message: "the host runs from what was restored until it boots again, and what is written until then is not kept in the root that it boots",
			Hint: []string{"systemctl reboot   # then go on from the controller; or do all of it by hand:"}}
	}
	return err
}

// dropCopy deletes a copy that nobody has come to use.
func dropCopy(v *volumes, m *member) error {
	if id := v.id(m.Aside); id == 0 || id != m.Copy {
		return nil
	}
	if m.From != "" {
		return rename(v, m.Aside, m.From)
	}
	f, err := btrfs.At(v.top.File, m.Aside)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := v.unused(f, m.Aside); err != nil {
		return fmt.Errorf("the copy /%s is kept: %w", m.Aside, err)
	}
	return btrfs.DestroyID(v.top.File, m.Copy)
}

func (w *work) backward(v *volumes, m *member, running bool) error {
	if m.Copy == 0 || v.id(m.Name) != m.Copy {
		return nil
	}
	if m.Live == 0 {
		err := rename(v, m.Name, m.Aside)
		return errors.Join(err, unix.Mkdirat(int(v.top.Fd()), m.Name, 0o755))
	}
	var errs []error
	for id, at := range m.Nested {
		old, now := filepath.Join(m.Aside, at), filepath.Join(m.Name, at)
		if seen := v.path(w.mounts(), old); running && v.id(now) == id && w.mountedAt(v, seen) { // see stand
			errs = append(errs, unix.Unmount(seen, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
		errs = append(errs, w.along(v, id, now, old))
	}
	if err := errors.Join(errs...); err != nil { // what is nested must not stay behind
		return err
	}
	err := btrfs.Exchange(v.top.File, m.Name, m.Aside)
	w.at("moved back " + m.Name)
	return err
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// plan looks at everything before anything is touched, and refuses by name
// what could not be done in full.
func (w *work) plan(_ context.Context, run string, d Data) (*restoration, error) {
	r := &restoration{Data: d, Run: run, State: dataBegun, Began: time.Now().UTC()}
	for _, s := range d.Snapshots {
		v, err := w.on(s.FSID)
		if err != nil {
			return nil, err
		}
		member := w.member
		if d.Itself {
			member = w.itself
		}
		m, err := member(v, s, r)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		r.Members = append(r.Members, m)
	}
	// What others are nested in comes first: the rest is exchanged in its new place.
	slices.SortStableFunc(r.Members, func(a, b *member) int { return cmp.Compare(len(a.Name), len(b.Name)) })
	mounts := w.mounts()
	for _, v := range w.volumes {
		own, err := w.affected(v, r, mounts)
		if err != nil {
			return nil, err
		}
		for _, m := range own {
			r.Mounts = append(r.Mounts, lost{m, v.FSID})
			r.Reboot = r.Reboot || m.Path == w.root()
		}
	}
	for _, m := range r.Members {
		if w.ownIn(m.FSID, m.Live) {
			return nil, invalid("cannot restore /%s: %s lies in it, and is no subvolume of its own that would move along", m.Name, w.Root)
		}
	}
	if r.Reboot { // nothing can be unmounted from below a running system
		r.Mounts = nil
		return r, w.hidden(r, mounts)
	}
	return r, nil
}

// hidden notes what the running system loses until it boots: what is nested in
// its root moves along, and takes what is mounted in there with it. What is
// mounted on a nested subvolume itself keeps that from moving.
func (w *work) hidden(r *restoration, mounts []mount) error {
	return w.each(r, false, func(v *volumes, m *member) error {
		for _, o := range mounts {
			in, at := v.point(mounts, o)
			for _, n := range m.Nested {
				if at.Root == "/"+filepath.Join(m.Name, n) {
					return inTheWay(o, "on a subvolume that is to move along")
				}
			}
			if v.shows(in, m) && !v.shows(at, m) {
				r.Gone = append(r.Gone, fmt.Sprintf("%s (%s) is not seen until the reboot", o.Path, o.FS))
			}
		}
		return nil
	})
}

func inTheWay(m mount, where string) error {
	return &Error{Code: "busy", Message: fmt.Sprintf("cannot restore: %s (%s) is mounted %s", m.Path, m.FS, where), Hint: []string{"umount " + quote(m.Path)}}
}

func (w *work) member(v *volumes, s Snapshot, r *restoration) (*member, error) {
	f, info, err := v.find(s)
	if err != nil {
		return nil, err
	}
	f.Close()
	m := &member{FSID: s.FSID, Name: strings.Trim(s.Origin, "/"), UUID: s.UUID, Source: cmp.Or(s.Path, "/"+s.Name), Live: v.id(strings.Trim(s.Origin, "/"))}
	switch {
	case m.Name == "" || filepath.Clean(m.Name) != m.Name || strings.HasPrefix(m.Name, ".."):
		return nil, invalid("%q cannot be restored: the top level has no name that could be exchanged", "/"+m.Name)
	case m.Live == info.ID:
		return nil, invalid("/%s cannot be restored from itself", m.Name)
	case slices.ContainsFunc(r.Members, func(o *member) bool { return o.FSID == m.FSID && o.Name == m.Name }):
		return nil, invalid("/%s is to be restored twice", m.Name)
	case m.Live == 0 && lexists(v.proc(m.Name)) && !empty(v.proc(m.Name)):
		return nil, invalid("cannot restore /%s: it is a folder with content, not a subvolume", m.Name)
	}
	if m.Live != 0 {
		if err := w.live(v, m); err != nil {
			return nil, err
		}
	}
	m.Aside, err = w.aside(v, r, m)
	return m, err
}

// itself is a subvolume that somebody has put away since a snapshot was taken of
// it, with all that is nested in it. Where a restore of ours did that, what
// replaced it is wanted.
func (w *work) itself(v *volumes, s Snapshot, r *restoration) (*member, error) {
	if w.made()[s.ParentUUID].Replaced {
		return nil, nil
	}
	name := strings.Trim(s.Origin, "/")
	id, found := v.tree.Find(s.ParentUUID)
	if !found {
		return nil, &Error{Code: "not-found", Message: fmt.Sprintf("what was /%s before the run (%s) is not there any more: what is left of it is %s", name, s.ParentUUID, s.Path),
			Hint: []string{"# from the controller: deployer rollback " + r.Run + " --data restore --subvolume " + s.Source}}
	}
	at, err := v.tree.Path(id)
	if err != nil || at == name {
		return nil, err
	}
	m := &member{FSID: s.FSID, Name: name, UUID: s.ParentUUID, Source: "/" + at, Copy: id, From: at, Live: v.id(name)}
	if m.Live != 0 {
		if err := w.live(v, m); err != nil {
			return nil, err
		}
	}
	m.Aside, err = w.aside(v, r, m)
	return m, err
}

// live looks at what would be replaced.
func (w *work) live(v *volumes, m *member) error {
	f, _, err := v.at(m.Live)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := btrfs.Get(f)
	if err != nil {
		return err
	}
	m.Kept = info.UUID
	if err := w.nest(v, m); err != nil {
		return err
	}
	by := w.mountedByID(v.FSID, m.Live)
	switch swap := swapIn(f); {
	case info.ReadOnly:
		return invalid("cannot restore /%s: it is read-only", m.Name)
	case swap != "":
		return &Error{Code: "busy", Message: fmt.Sprintf("cannot restore /%s: it holds the active swap file %s", m.Name, swap), Hint: []string{"swapoff " + quote(swap)}}
	case len(by) > 0:
		return invalid("cannot restore /%s: %s mounts it by subvolid=%d, and would go on mounting what is replaced: use subvol=/%s there", m.Name, strings.Join(by, ", "), m.Live, m.Name)
	case v.tree.Default == m.Live:
		return &Error{Code: "invalid", Message: fmt.Sprintf("cannot restore /%s: it is the default subvolume, and mounts without subvol= would go on with what is replaced", m.Name),
			Hint: []string{"btrfs subvolume set-default 5 MOUNT"}}
	}
	return nil
}

// nest notes what is to move along. A read-only subvolume cannot.
func (w *work) nest(v *volumes, m *member) (err error) {
	if m.From != "" { // it has its own
		return nil
	}
	if m.Nested, err = v.tree.Nested(m.Live); err != nil {
		return err
	}
	for id, at := range m.Nested {
		if v.tree.Info(id).ReadOnly {
			at = w.where(v, filepath.Join(m.Name, at))
			return &Error{Code: "invalid", Message: fmt.Sprintf("cannot restore /%s: the read-only subvolume %s is nested in it, and nothing moves such a one along", m.Name, at),
				Hint: []string{"# delete it, or put a writable snapshot of it in its place: btrfs subvolume snapshot " + quote(at) + " NEW"}}
		}
	}
	return nil
}

func empty(dir string) bool {
	names, err := os.ReadDir(dir)
	return err == nil && len(names) == 0
}

var (
	sourceUUID = regexp.MustCompile(`(?i)(?:\bUUID=|/by-uuid/)"?([0-9a-f-]{36})`)
	rootSource = regexp.MustCompile(`(?:^|\s)root=\S+`)
)

// mountedByID names the files that mount a subvolume by its id: every Btrfs has
// the low ones, so that what names another file system is none of it.
func (a *agent) mountedByID(fsid string, id uint64) (files []string) {
	want := regexp.MustCompile(fmt.Sprintf(`subvolid=(0x0*%x|0*%d)\b`, id, id))
	list := []string{"/etc/fstab", "/proc/cmdline"}
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/generator", "/run/systemd/system"} {
		units, _ := filepath.Glob(a.host(dir) + "/*.mount")
		for _, u := range units {
			list = append(list, strings.TrimPrefix(u, a.Prefix))
		}
	}
	for _, file := range list {
		data, _ := os.ReadFile(a.host(file))
		parts := slices.DeleteFunc(strings.Split(string(data), "\n"), func(line string) bool {
			line = strings.TrimSpace(line)
			return strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
		})
		if file != "/etc/fstab" { // of a unit, the source is on a line of its own
			parts = []string{strings.Join(parts, "\n")}
		}
		for _, part := range parts {
			source := part
			if file == "/proc/cmdline" { // which names what is resumed from and unlocked, too
				source = rootSource.FindString(part)
			}
			if of := sourceUUID.FindStringSubmatch(source); of != nil && !strings.EqualFold(of[1], fsid) {
				continue
			}
			if want.MatchString(part) && !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files
}

// aside finds a name beside everything that is restored, for the copy and then
// for what is replaced.
func (w *work) aside(v *volumes, r *restoration, m *member) (string, error) {
	subjects := []uint64{m.Live}
	for _, s := range r.Snapshots {
		if id := v.id(strings.Trim(s.Origin, "/")); s.FSID == v.FSID && id != 0 {
			subjects = append(subjects, id)
		}
	}
	var dirs []string
	for _, s := range r.Snapshots {
		if dir := filepath.Dir(s.Path); s.FSID == v.FSID && snapshotName.MatchString(filepath.Base(s.Path)) && exists(dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range w.folders(v.FSID) {
		dirs = append(dirs, w.host(dir))
	}
	name := func(at string) string {
		name := filepath.Join(at, shorten(r.Began.Format(stampForm)+"-"+r.Run+"-replaced-"+dashed(m.Name)))
		if lexists(v.proc(name)) || slices.ContainsFunc(r.Members, func(o *member) bool { return o.Aside == name }) {
			name = filepath.Join(at, shorten(fmt.Sprintf("%s-%d-%s", filepath.Base(name), m.Live, token())))
		}
		return name
	}
	for _, dir := range dirs {
		f, err := w.fs.folder(dir, v.FSID, v.tree, subjects)
		if err != nil {
			continue
		}
		defer f.Close()
		at, err := v.tree.PathOf(f)
		return name(at), err
	}
	return name(""), nil // the top level, which nothing contains
}

// affected is the mounts that have to go and come again: those that show a part
// of what is replaced, and those below them. All stay where the root is replaced,
// so that none is in the way.
func (w *work) affected(v *volumes, r *restoration, mounts []mount) (list []mount, err error) {
	shown := func(m mount) bool {
		return m.FS == "btrfs" && m.Dev == v.dev && slices.ContainsFunc(r.Members, func(r *member) bool { return r.FSID == v.FSID && r.Live != 0 && v.shows(m, r) })
	}
	waits := slices.ContainsFunc(mounts, func(m mount) bool { return m.Path == w.root() && shown(m) })
	for _, m := range mounts {
		below := slices.ContainsFunc(list, func(o mount) bool { return m.Parent == o.ID && o.Path != w.root() })
		if !waits && (below && m.Dev != v.dev || !shown(m) && !below && v.carried(r, mounts, m)) {
			return nil, inTheWay(m, "below a subvolume that is to be replaced")
		}
		if shown(m) || below {
			list = append(list, m)
		}
	}
	return list, nil
}

// carried tells whether a mount point lies in a member that is seen through a
// mount of what it is nested in: it would go away with what is replaced.
func (v *volumes) carried(r *restoration, mounts []mount, m mount) bool {
	in, at := v.point(mounts, m)
	return slices.ContainsFunc(r.Members, func(r *member) bool { return r.FSID == v.FSID && r.Live != 0 && v.shows(at, r) && !v.shows(in, r) })
}

// point is the mount that another's mount point lies in, and where there; nothing
// if that is of another file system.
func (v *volumes) point(mounts []mount, m mount) (in, at mount) {
	for _, in := range v.mounts(mounts) {
		if in.ID == m.Parent {
			at := in
			at.Root = filepath.Join(in.Root, strings.TrimPrefix(m.Path, strings.TrimSuffix(in.Path, "/")))
			return in, at
		}
	}
	return in, at
}

// root is where the running system's root is mounted.
func (a *agent) root() string { return cmp.Or(a.Prefix, "/") }

// shows tells whether a mount shows a part of a member, and not only of what is
// nested in it: that keeps its mounts when it moves along.
func (v *volumes) shows(m mount, r *member) bool {
	if !within(m.Root, "/"+r.Name) {
		return false
	}
	for _, at := range r.Nested {
		if within(m.Root, "/"+filepath.Join(r.Name, at)) {
			return false
		}
	}
	return true
}

// clear stops who uses the subvolumes, and unmounts them. Before that it
// refuses, with their names, what only a person can end.
func (w *work) clear(ctx context.Context, r *restoration) error {
	if r.Reboot {
		if !w.inPlace(r) {
			r.Boot = w.bootID()
		}
		return errors.Join(w.lookAgain(r), w.store.writeJSON(w.file, r)) // with the copies' ids
	}
	mounts := make([]mount, len(r.Mounts))
	for i, m := range r.Mounts {
		mounts[i] = m.mount
	}
	devs, err := w.devices(r)
	if err != nil {
		return err
	}
	if err := w.stop(ctx, r, devs, mounts); err != nil {
		return err
	}
	if err := errors.Join(w.lookAgain(r), w.store.writeJSON(w.file, r)); err != nil {
		return err
	}
	w.at("unmounting")
	return w.unmount(r, func(lost) bool { return true })
}

// evict stops who has come to use the copies that are to be taken back, since a
// boot say. Without it they would go on with what lies aside then.
func (w *work) evict(ctx context.Context, r *restoration) error {
	if r.Reboot || !slices.ContainsFunc(r.Members, func(m *member) bool { return m.Used }) {
		return nil
	}
	if err := w.lookAgain(r); err != nil { // they may be mounted elsewhere by now
		return err
	}
	copies, shown, err := w.showing(r)
	if err != nil {
		return err
	}
	var mounts []mount // as they are now, with the numbers of this boot
	for _, m := range w.mounts() {
		if slices.ContainsFunc(shown, func(l lost) bool { return l.Path == m.Path }) {
			mounts = append(mounts, m)
		}
	}
	return w.stop(ctx, r, copies, mounts)
}

// stop stops who uses some subvolumes and mounts, having written down that they
// are to be started again.
func (w *work) stop(ctx context.Context, r *restoration, devs map[uint64]bool, mounts []mount) error {
	units, others := w.stoppable(ctx, usersOf(devs, mounts))
	others = append(others, loopsOn(devs)...)
	for _, s := range r.Snapshots { // they may have nothing open at this moment
		for _, u := range s.Units {
			if on, err := running(ctx, w.Units, u); err != nil {
				return err
			} else if on && !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	if len(others) > 0 {
		return busy(r, others)
	}
	units, err := w.dependents(ctx, mounts, units)
	if err != nil {
		return err
	}
	for _, u := range units {
		if !slices.Contains(r.Units, u) {
			r.Units = append(r.Units, u)
		}
	}
	if err := w.store.writeJSON(w.file, r); err != nil { // before they stop: they are to be started again
		return err
	}
	w.at("to stop")
	if len(units) > 0 {
		if err := w.Units.Do(ctx, "stop", units...); err != nil {
			return fmt.Errorf("cannot stop %s: %w", strings.Join(units, ", "), err)
		}
	}
	w.at("stopped")
	if left := usersOf(devs, mounts); len(left) > 0 {
		return busy(r, []string{left[0].String()})
	}
	return nil
}

// lookAgain finds what was nested in a member, or mounted from it, since it was
// planned: until now all went on.
func (w *work) lookAgain(r *restoration) error {
	err := w.each(r, false, func(v *volumes, m *member) error {
		if m.Live == 0 || v.id(m.Name) != m.Live {
			return nil
		}
		return errors.Join(v.read(), w.nest(v, m))
	})
	if err != nil || r.Reboot {
		return err
	}
	mounts := w.mounts()
	for _, v := range w.volumes {
		own, err := w.affected(v, r, mounts)
		if err != nil {
			return err
		}
		for _, m := range own {
			if !slices.ContainsFunc(r.Mounts, func(l lost) bool { return l.Path == m.Path }) {
				r.Mounts = append(r.Mounts, lost{m, v.FSID})
			}
		}
	}
	return nil
}

// loopsOn is the loop devices whose files lie on devices: the kernel is their user.
func loopsOn(devs map[uint64]bool) (list []string) {
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		file, _ := os.ReadFile(l)
		name := strings.TrimSpace(string(file))
		if dev, ok := devOf(os.Stat(name)); ok && devs[dev] {
			list = append(list, fmt.Sprintf("the loop device %s uses %s", strings.Split(l, "/")[3], name))
		}
	}
	return list
}

func busy(r *restoration, who []string) error {
	return &Error{Code: "busy", Message: fmt.Sprintf("cannot restore /%s: %s", r.Members[0].Name, strings.Join(who, "; ")),
		Hint: []string{"# end these processes and go on from the controller, or do all of it by hand:"}}
}

// devices is by which numbers open files of the members, and of what is
// mounted below them, tell.
func (w *work) devices(r *restoration) (map[uint64]bool, error) {
	devs := map[uint64]bool{}
	err := w.each(r, false, func(v *volumes, m *member) error {
		f, _, err := v.at(m.Live)
		if m.Live == 0 || err != nil {
			return nil // not there, or exchanged before
		}
		defer f.Close()
		dev, ok := devOf(f.Stat())
		devs[dev] = ok
		return nil
	})
	for _, l := range r.Mounts {
		if dev, ok := devOf(os.Stat(l.Path)); ok && w.mounted(l) {
			devs[dev] = true
		}
	}
	return devs, err
}

// mounted tells whether the file system is mounted at a path: numbers of mounts
// and of devices are others after a boot.
func (w *work) mounted(l lost) bool {
	v := w.volumes[l.FSID]
	return v != nil && w.mountedAt(v, l.Path)
}

func (w *work) mountedAt(v *volumes, path string) bool {
	return slices.ContainsFunc(v.mounts(w.mounts()), func(o mount) bool { return o.Path == path })
}

func (w *work) unmount(r *restoration, which func(lost) bool) error {
	for _, m := range slices.Backward(r.Mounts) {
		if !w.mounted(m) || !which(m) {
			continue
		}
		if err := unmountIdle(m.Path); err != nil {
			return &Error{Code: "busy", Message: fmt.Sprintf("cannot unmount %s: %v", m.Path, err), Hint: []string{"findmnt -R " + quote(m.Path), "losetup -a"}}
		}
		w.at("unmounted")
	}
	return nil
}

// unmountIdle waits up to two seconds for what ends by itself: while a service gets
// its sandbox, its copies of all mounts are busy, and the host's are with them.
func unmountIdle(path string) (err error) {
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		if err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(wait)
	}
	return err
}

// withdraw unmounts what shows a copy, with what is mounted below that: a mount
// goes on showing the same subvolume whatever its name becomes.
func (w *work) withdraw(r *restoration) error {
	_, shown, err := w.showing(r)
	return errors.Join(err, w.unmount(r, func(m lost) bool {
		return slices.ContainsFunc(shown, func(l lost) bool { return l.Path == m.Path })
	}))
}

// showing is the device numbers of the copies that are in place, and the mounts
// that show them, with what is mounted below those.
func (w *work) showing(r *restoration) (map[uint64]bool, []lost, error) {
	copies := map[uint64]bool{}
	err := w.each(r, true, func(v *volumes, m *member) error {
		if m.Copy != 0 && v.id(m.Name) == m.Copy {
			dev, ok := devOf(os.Stat(v.proc(m.Name)))
			copies[dev] = ok
		}
		return nil
	})
	var tops []string
	for _, m := range r.Mounts {
		if dev, ok := devOf(os.Stat(m.Path)); ok && copies[dev] {
			tops = append(tops, m.Path)
		}
	}
	below := func(m lost) bool {
		return slices.ContainsFunc(tops, func(top string) bool { return within(m.Path, top) })
	}
	return copies, slices.DeleteFunc(slices.Clone(r.Mounts), func(m lost) bool { return !below(m) }), err
}

// remount brings the mounts back, as they were, and looks what they show.
func (w *work) remount(r *restoration) error {
	var errs []error
	for _, l := range r.Mounts {
		v, err := w.on(l.FSID)
		if err == nil && !w.mounted(l) {
			r.below(l.Path)
			err = w.mountAgain(v, l.mount, r)
		}
		if err == nil {
			err = v.verify(l.mount)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// below notes what somebody has written to a mount's place since the restore
// began: a timer's unit does not know that nothing is mounted there, and nobody
// would find it below the mount. Subvolumes that were moved there are no such.
func (r *restoration) below(path string) {
	var names []string
	stat := func(st os.FileInfo) *syscall.Stat_t { return st.Sys().(*syscall.Stat_t) }
	if st, err := os.Stat(path); err != nil || stat(st).Ino == btrfs.RootInode {
		return // a mount on the place of the subvolume itself
	}
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		st, err := e.Info()
		if err == nil && stat(st).Ino != btrfs.RootInode && time.Unix(stat(st).Ctim.Unix()).After(r.Began) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return
	}
	text := fmt.Sprintf("what was written to %s while it was not mounted lies below the mount: %s", path, strings.Join(names, ", "))
	if !slices.Contains(r.Below, text) {
		r.Below = append(r.Below, text)
	}
}

func (w *work) mountAgain(v *volumes, m mount, r *restoration) error {
	root := strings.Trim(m.Root, "/")
	if !lexists(v.proc(root)) {
		if gone := fmt.Sprintf("%s is not mounted again: the snapshot has no /%s", m.Path, root); !slices.Contains(r.Gone, gone) {
			r.Gone = append(r.Gone, gone)
		}
		return nil
	}
	name := root // the subvolume, and the part of it
	for v.id(name) == 0 && name != "" {
		name = above(name)
	}
	part := strings.Trim(strings.TrimPrefix(root, name), "/")
	vol, err := btrfs.Mount(v.Device, name)
	if err != nil {
		return err
	}
	defer vol.Close()
	if err := w.store.mkdir("mnt"); err != nil {
		return err
	}
	return vol.Attach(part, m.Path, m.Options, filepath.Join(w.Root, "mnt"))
}

// verify compares what a mount shows with what has the name now. A remount
// with another subvol= changes nothing and says nothing.
func (v *volumes) verify(m mount) error {
	want, ok := devOf(os.Stat(v.proc(strings.Trim(m.Root, "/"))))
	if !ok {
		return nil
	}
	if is, _ := devOf(os.Stat(m.Path)); is != want {
		return fmt.Errorf("%s does not show /%s after the restore", m.Path, strings.Trim(m.Root, "/"))
	}
	return nil
}

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// user is a process that holds a subvolume: by an open file, a folder, a
// program, a mapping, or by a mount of its own namespace.
type user struct {
	pid        int
	comm, unit string
	how        string
}

func (u user) String() string {
	s := fmt.Sprintf("process %d (%s)", u.pid, u.comm)
	if u.unit != "" {
		s += " of " + u.unit
	}
	return s + " " + u.how
}

// usersOf finds who holds any of some subvolumes, in all namespaces. Each
// subvolume has a device number of its own, by which open files tell; mounts
// tell by the part of the file system that they show.
func usersOf(devs map[uint64]bool, mounts []mount) []user {
	var list []user
	seen := map[string]string{} // mount namespaces: what they hold
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		pid, _ := strconv.Atoi(filepath.Base(proc))
		if pid == os.Getpid() {
			continue
		}
		how := holds(proc, devs)
		ns, err := os.Readlink(proc + "/ns/mnt")
		if err != nil {
			ns = proc
		}
		if _, known := seen[ns]; !known {
			seen[ns] = foreignMount(proc, mounts)
		}
		if how == "" {
			how = seen[ns]
		}
		if how != "" {
			comm, _ := os.ReadFile(proc + "/comm")
			list = append(list, user{pid, strings.TrimSpace(string(comm)), unitOf(proc), how})
		}
	}
	return list
}

func holds(proc string, devs map[uint64]bool) string {
	paths := []string{proc + "/cwd", proc + "/root", proc + "/exe"}
	for _, dir := range []string{"/fd", "/map_files"} {
		names, _ := os.ReadDir(proc + dir)
		for _, n := range names {
			paths = append(paths, proc+dir+"/"+n.Name())
		}
	}
	for _, p := range paths {
		var st unix.Statx_t
		// Without asking a server: one that is gone must not stop this.
		if unix.Statx(unix.AT_FDCWD, p, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st) == nil && devs[unix.Mkdev(st.Dev_major, st.Dev_minor)] {
			at, _ := os.Readlink(p)
			return "uses " + at
		}
	}
	return ""
}

// foreignMount is a mount in another namespace that would not follow the
// host's: it is neither a copy that does nor below a parent that does.
func foreignMount(proc string, own []mount) string {
	theirs, ours := byID(readMounts(proc+"/mountinfo")), byID(readMounts("/proc/self/mountinfo"))
	for id, t := range theirs {
		if _, same := ours[id]; same { // no two mounts have one number: this is the host's namespace
			return ""
		}
		follows := func(m mount) bool {
			return t.Root == m.Root && peer(t, m) && peer(theirs[t.Parent], ours[m.Parent])
		}
		same := func(m mount) bool { return t.Dev == m.Dev && within(t.Root, m.Root) }
		if slices.ContainsFunc(own, same) && !slices.ContainsFunc(own, follows) {
			return "has it mounted at " + t.Path + ", in a mount namespace of its own"
		}
	}
	return ""
}

func byID(mounts []mount) map[string]mount {
	ids := map[string]mount{}
	for _, m := range mounts {
		ids[m.ID] = m
	}
	return ids
}

func peer(t, m mount) bool { return m.Shared != "" && (t.Shared == m.Shared || t.Master == m.Shared) }

// unitOf is the system's unit of a process, by its control group: the outermost
// one, since that is what can be stopped. What a user's manager runs has none.
func unitOf(proc string) string {
	data, _ := os.ReadFile(proc + "/cgroup")
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		for _, part := range strings.Split(f[2], "/") {
			if part == "user.slice" {
				return ""
			}
			if ext := filepath.Ext(part); ext == ".service" || ext == ".scope" {
				return part
			}
		}
	}
	return ""
}

// essential is what a host, and the way to it, does not do without.
func essential(unit string) bool {
	name, _, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	return own(unit) || strings.HasPrefix(name, "systemd-") || slices.Contains([]string{"dbus", "dbus-broker", "sshd", "nix-daemon", "init"}, name)
}

// stoppable splits users into units that can be stopped and started again, and
// those that only a person can end.
func (a *agent) stoppable(ctx context.Context, users []user) (units []string, others []string) {
	for _, u := range users {
		if slices.Contains(units, u.unit) {
			continue
		}
		ok := filepath.Ext(u.unit) == ".service" && (!essential(u.unit) || strings.HasPrefix(u.unit, "systemd-nspawn@"))
		if ok {
			p, err := a.Units.Show(ctx, u.unit, "RefuseManualStop", "Transient")
			ok = err == nil && p["RefuseManualStop"] != "yes" && p["Transient"] != "yes" // which is gone once it has stopped
		}
		if ok {
			units = append(units, u.unit)
		} else {
			others = append(others, u.String())
		}
	}
	return units, others
}

// stopsAlong is the relations along which a stop goes, and no start.
var stopsAlong = []string{"RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"}

// dependents is what runs of some units and of what requires some mounts, with
// what stops along with these, and what would start one of them again. What is
// idle itself may pass a stop on.
func (a *agent) dependents(ctx context.Context, mounts []mount, units []string) (list []string, err error) {
	units = slices.Clone(units)
	add := func(p map[string]string, want func(string) bool, relations ...string) {
		for _, name := range relations {
			for _, u := range strings.Fields(p[name]) {
				if !slices.Contains(units, u) && want(u) {
					units = append(units, u)
				}
			}
		}
	}
	for _, m := range mounts { // these are unmounted, not stopped
		p, _ := a.Units.Show(ctx, mountUnit(m.Path), "RequiredBy", "BoundBy")
		add(p, func(u string) bool {
			ext := filepath.Ext(u)
			return !essential(u) && ext != ".mount" && ext != ".target"
		}, "RequiredBy", "BoundBy")
	}
	asked := len(units)
	for i := 0; i < len(units); i++ {
		u := units[i]
		p, err := a.Units.Show(ctx, u, append([]string{"ActiveState", "TriggeredBy"}, stopsAlong...)...)
		switch {
		case err != nil:
			return nil, err
		case runs(p) && essential(u) && i >= asked:
			return nil, &Error{Code: "busy", Message: fmt.Sprintf("to stop %s would stop %s along: the host, or the way to it, does not go on without", strings.Join(units[:asked], ", "), u),
				Hint: []string{"systemctl show -p Requires,Requisite,BindsTo,PartOf " + quote(u)}}
		case runs(p):
			list = append(list, u)
		}
		add(p, func(u string) bool { return !essential(u) }, "TriggeredBy")
		add(p, func(string) bool { return true }, stopsAlong...)
	}
	return list, nil
}

// mountUnit is systemd.unit(5)'s name for a path.
func mountUnit(path string) string {
	path = strings.Trim(path, "/")
	if path == "" {
		return "-.mount"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == ':', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + ".mount"
}

// devOf is the device number of what a path or descriptor shows.
func devOf(st os.FileInfo, err error) (uint64, bool) {
	if err != nil {
		return 0, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return sys.Dev, ok
}

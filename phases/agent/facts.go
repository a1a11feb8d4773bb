package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// facts reads what the host is. The few programs it asks run beside each other.
func (a *agent) facts(ctx context.Context, args FactsArgs) (Facts, error) {
	f := Facts{BootID: a.bootID(), Time: time.Now().UTC(), Failed: []string{}}
	var nix, manager, config string
	var units []Unit
	var unitsErr error
	var asked sync.WaitGroup
	if !args.Brief {
		asked.Go(func() { nix = a.ask(ctx, "nix", "--version") })
		asked.Go(func() { manager = a.ask(ctx, "systemctl", "--version") })
		asked.Go(func() { config = a.nixConfig(ctx) })
	}
	asked.Go(func() { units, unitsErr = a.Units.List(ctx) })
	a.machine(&f)
	a.systems(&f)
	a.ownState(ctx, &f)
	f.Space = a.spaces(args.Paths, &f)
	f.Files = a.digests(args.Files, &f)
	asked.Wait()
	if !args.Brief {
		f.Nix, f.Systemd = nixVersion(nix), systemdVersion(manager)
		trust(&f, config)
	}
	if unitsErr != nil {
		f.Unknown = append(f.Unknown, "failed", "active")
	} else {
		f.Failed, f.Active = failingOf(ctx, a.Units, units), active(units)
	}
	slices.Sort(f.Unknown)
	return f, nil
}

// ask is what a program prints, "" if it does not.
func (a *agent) ask(ctx context.Context, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	var out bytes.Buffer
	c := a.command(ctx, args, nil)
	c.Stdout = &out
	if c.Run() != nil {
		return ""
	}
	return out.String()
}

// nixConfig prints the daemon's settings; the command was renamed in Nix 2.20.
func (a *agent) nixConfig(ctx context.Context) string {
	nix := []string{"nix", "--extra-experimental-features", "nix-command"}
	return cmp.Or(a.ask(ctx, append(nix, "config", "show")...), a.ask(ctx, append(nix, "show-config")...))
}

func (a *agent) machine(f *Facts) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Arch, f.Kernel, f.Hostname = unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Nodename[:])
	}
	f.OS = osID(cmp.Or(a.line("/etc/os-release"), a.line("/usr/lib/os-release")))
	f.User = cmp.Or(os.Getenv("SUDO_USER"), userName())
	f.Root = f.User == "root"
	f.Launcher = exists(a.Root + "/agent")
}

func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

func osID(release string) string {
	for line := range strings.Lines(release) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.Trim(id, `"'`)
		}
	}
	return ""
}

func (a *agent) systems(f *Facts) {
	f.System, f.Booted = a.resolve("/run/current-system"), a.resolve("/run/booted-system")
	f.Profile = a.profile(SystemProfile)
	f.Specialisation = a.specialisation(f.System, f.Profile)
	boot, err := a.boot()
	if err != nil {
		f.Unknown = append(f.Unknown, "boot")
	}
	f.Boot = boot
	f.SwitchLocked = a.switchLocked()
}

// specialisation is the name under which a generation knows the system.
func (a *agent) specialisation(system string, p Profile) string {
	tops := []string{p.System}
	for _, g := range slices.Backward(p.Generations) {
		tops = append(tops, g.System)
	}
	for _, top := range tops {
		if system == "" || top == system {
			return ""
		}
		entries, _ := os.ReadDir(a.host(top + "/specialisation"))
		for _, e := range entries {
			if a.resolve(top+"/specialisation/"+e.Name()) == system {
				return e.Name()
			}
		}
	}
	return ""
}

// ownState is what the agent's own folder knows.
func (a *agent) ownState(_ context.Context, f *Facts) {
	s, err := a.store(false)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.Unknown = append(f.Unknown, "open_run", "holder")
		}
		return
	}
	f.OpenRun, f.Holder = openRun(s, ""), a.holderNow(s)
}

func (a *agent) spaces(paths []string, f *Facts) []Space {
	list := []Space{}
	mounts := readMounts(a.host("/proc/self/mountinfo"))
	for _, p := range paths {
		var st unix.Statfs_t
		if err := unix.Statfs(a.host(p), &st); err != nil {
			f.Unknown = append(f.Unknown, "space "+p)
			continue
		}
		size := uint64(st.Bsize)
		list = append(list, Space{Path: p, FS: mountOf(mounts, p).FS, Total: st.Blocks * size, Free: st.Bavail * size})
	}
	return list
}

func (a *agent) digests(paths []string, f *Facts) map[string]string {
	if len(paths) == 0 {
		return nil
	}
	digests := map[string]string{}
	for _, p := range paths {
		data, err := os.ReadFile(a.host(p))
		switch {
		case err == nil:
			digests[p] = sum(data)
		case os.IsNotExist(err):
			digests[p] = ""
		default:
			f.Unknown = append(f.Unknown, "file "+p)
		}
	}
	return digests
}

// nixVersion reads "nix (Nix) 2.26.3".
func nixVersion(text string) string {
	f := strings.Fields(text)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// systemdVersion reads "systemd 257 (257.13-1~deb13u1)".
func systemdVersion(text string) string {
	f := strings.Fields(text)
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// trust tells from the daemon's settings whether the login may import unsigned paths.
func trust(f *Facts, config string) {
	users, ok := "", false
	for line := range strings.Lines(config) {
		key, rest, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(key) {
		case "trusted-users":
			users, ok = rest, true
		case "trusted-public-keys":
			f.TrustedKeys = strings.Fields(rest)
		}
	}
	if f.Root {
		ok, users = true, f.User
	}
	if !ok {
		f.Unknown = append(f.Unknown, "trusted")
		return
	}
	trusted := slices.ContainsFunc(strings.Fields(users), func(u string) bool {
		return u == "*" || u == f.User || strings.HasPrefix(u, "@") && member(f.User, u[1:])
	})
	f.Trusted = &trusted
}

func member(name, group string) bool {
	u, err := user.Lookup(name)
	if err != nil {
		return false
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	ids, _ := u.GroupIds()
	return slices.Contains(ids, g.Gid)
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// facts reads what the host is. What it reads faster or better as root comes
// from here, the rest from the script that hosts without an agent are asked by.
func (a *agent) facts(ctx context.Context, args FactsArgs) (Facts, error) {
	f := Facts{BootID: a.bootID(), Time: time.Now().UTC(), Failed: []string{}}
	var said Facts
	var units []Unit
	var saidErr, unitsErr error
	var asked sync.WaitGroup
	if !args.Brief {
		asked.Go(func() { said, saidErr = a.script(ctx) })
	}
	asked.Go(func() { units, unitsErr = a.Units.List(ctx) })
	a.machine(&f)
	a.systems(&f)
	a.ownState(&f)
	f.Space = a.spaces(args.Paths, &f)
	f.Files = a.digests(args.Files, &f)
	asked.Wait()
	f.Nix, f.Systemd, f.TrustedKeys = said.Nix, said.Systemd, said.TrustedKeys
	f.Module, f.StateDir, f.Pending, f.BootBytes, f.Foreign, f.Missing = said.Module, said.StateDir, said.Pending, said.BootBytes, said.Foreign, said.Missing
	if f.Root { // else root's word says nothing about the login
		f.Trusted = said.Trusted
	}
	if saidErr != nil {
		f.Unknown = append(f.Unknown, "nix", "systemd", "trusted")
	}
	if unitsErr != nil {
		f.Unknown = append(f.Unknown, "failed", "active")
	} else {
		f.Failed, f.Active = failingOf(ctx, a.Units, units), active(units)
	}
	slices.Sort(f.Unknown)
	return f, nil
}

func (a *agent) script(ctx context.Context) (Facts, error) {
	out, err := a.ask(ctx, "sh", "-c", FactsScript)
	if err != nil {
		return Facts{}, err
	}
	return ParseFacts([]byte(out))
}

func (a *agent) machine(f *Facts) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Arch, f.Kernel, f.Hostname = unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Nodename[:])
	}
	for line := range strings.Lines(a.line("/etc/os-release")) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			f.OS = strings.Trim(id, `"'`)
		}
	}
	f.User = cmp.Or(os.Getenv("SUDO_USER"), "root")
	f.Root, f.Launcher = f.User == "root", exists(a.Root+"/agent")
}

func (a *agent) systems(f *Facts) {
	f.System, f.Booted = a.resolve("/run/current-system"), a.resolve("/run/booted-system")
	f.Profile = a.profile(SystemProfile)
	f.Specialisation = a.specialisation(f.System, f.Profile)
	boot, err := a.boot()
	if err != nil {
		f.Unknown = append(f.Unknown, "boot")
	}
	f.Boot, f.SwitchLocked = boot, a.switchLocked()
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
func (a *agent) ownState(f *Facts) {
	s, err := a.store(false)
	switch {
	case err == nil:
		f.OpenRun = openRun(s, "")
		if h := heldBy(s); a.live(s, h) {
			h.Live, f.Holder = true, &h
		}
		_ = s.readJSON(rejectedFile, &f.Rejected)
	case !errors.Is(err, fs.ErrNotExist):
		f.Unknown = append(f.Unknown, "open_run", "holder")
	}
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

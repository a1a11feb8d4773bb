package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// stock is a host with a Btrfs at /disk (its top level), of which /srv/NAME are
// subvolumes NAME with a mount of their own, and a set of them in /disk/snaps.
type stock struct {
	*host
	set SnapshotSet
}

func newStock(t *testing.T, mounted ...string) *stock {
	t.Helper()
	h := disk(t, append(slices.Clone(mounted), "snaps")...)
	s := &stock{host: h}
	for _, name := range mounted {
		s.mount(name, "/srv/"+name)
	}
	return s
}

func (s *stock) mount(subvol, at string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(s.path(at), 0o755))
	s.sh("mount -o noatime,nosuid,subvol=%q %q %q", "/"+subvol, s.device(), s.path(at))
	s.t.Cleanup(func() { exec.Command("umount", "-R", s.path(at)).Run() })
}

func (s *stock) device() string { return mountOf(s.mounts(), s.path("disk")).Source }

func (s *stock) sh(format string, args ...any) string {
	s.t.Helper()
	c := exec.Command("bash", "-euc", fmt.Sprintf(format, args...))
	c.Dir = s.dir
	out, err := c.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v %s", fmt.Sprintf(format, args...), err, out)
	}
	return string(out)
}

// take writes "old" everywhere, takes the set, then writes "new".
func (s *stock) take(paths ...string) {
	s.t.Helper()
	for _, p := range paths {
		s.file(p+"/f", "old")
	}
	set, err := s.snapshot(s.t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: paths})
	must(s.t, err)
	s.set = set
	for _, p := range paths {
		s.file(p+"/f", "new")
		s.file(p+"/later", "later")
	}
}

func (s *stock) restore(stay bool, snaps ...Snapshot) Outcome {
	s.t.Helper()
	if snaps == nil {
		snaps = s.set.Snapshots
	}
	return s.apply(s.t.Context(), "r-1", Operation{Op: DoData, Data: &Data{Snapshots: snaps, Stay: stay}})
}

func (s *stock) done(o Outcome) {
	s.t.Helper()
	if o.State != opDone {
		s.t.Fatalf("%s: %s", o.State, o.Message)
	}
}

func (s *stock) refused(o Outcome, want string) {
	s.t.Helper()
	if o.State != opFailed || !strings.Contains(o.Message, want) || strings.Contains(o.Message, "taken back") || !o.Intact {
		s.t.Errorf("%s: %q, want %q, and all as it was: %v", o.State, o.Message, want, o.Intact)
	}
}

// is checks what is to be seen at paths.
func (s *stock) is(want string, paths ...string) {
	s.t.Helper()
	for _, p := range paths {
		if got := s.read(p + "/f"); got != want {
			s.t.Errorf("%s is %q, want %q", p, got, want)
		}
		if exists(s.path(p+"/later")) != (want == "new") {
			s.t.Errorf("%s: what is later does not fit %s", p, want)
		}
	}
}

// kept is what restores have replaced.
func (s *stock) kept() (list []Snapshot) {
	s.t.Helper()
	all, err := s.snapshots(s.t.Context(), DiscoverArgs{Paths: []string{"/disk"}})
	must(s.t, err)
	for _, one := range all {
		if one.Replaced {
			list = append(list, one)
		}
	}
	return list
}

// service is a unit with a real control group whose script runs.
func (s *stock) service(name, script string) fakeUnits {
	s.t.Helper()
	u := fakeUnits{s.dir}
	s.file(name+".script", script)
	must(s.t, u.Do(s.t.Context(), "start", name))
	s.t.Cleanup(func() {
		u.stopScript(name)
		for dir := cgroups() + u.cgroup(name); len(dir) > len(cgroups()); dir = filepath.Dir(dir) {
			syscall.Rmdir(dir)
		}
	})
	return u
}

// beside is what lies in the folder of snapshots.
func (s *stock) beside() (names []string) {
	list, _ := os.ReadDir(s.path("disk/snaps"))
	for _, e := range list {
		if e.Name() != ballastName {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestRestoreExchangesAMountedSubvolume(t *testing.T) {
	s := newStock(t, "a", "b")
	s.take("/srv/a", "/srv/b")
	before := mountOf(s.mounts(), s.path("srv/a"))
	s.done(s.restore(false))
	s.is("old", "/srv/a", "/srv/b", "/disk/a", "/disk/b")
	after := mountOf(s.mounts(), s.path("srv/a"))
	if after.Root != "/a" || after.Options != before.Options || after.Super == before.Super {
		t.Errorf("mounted as %+v, was %+v", after, before)
	}
	s.file("srv/a/f", "written") // the snapshot itself is never put in place
	again := s.restore(false)
	if again.State != opAlready || s.read("srv/a/f") != "written" {
		t.Error("done again, it took what was written since")
	}
	kept := s.kept()
	if len(kept) != 2 || !slices.Equal(again.Kept, []string{kept[0].UUID, kept[1].UUID}) || kept[0].Origin != "a" || s.read(strings.TrimPrefix(kept[0].Path, s.dir)+"/f") != "new" {
		t.Fatalf("%+v", kept)
	}
	if taken := s.set.Snapshots[0].Created; !kept[0].Created.After(taken) { // else retention would take it for old
		t.Errorf("replaced at %s, after a snapshot of %s", kept[0].Created, taken)
	}
	s.done(s.restore(false, kept...)) // the restore is undone
	s.is("new", "/srv/a", "/srv/b")
	if len(s.kept()) != 4 {
		t.Errorf("%+v", s.kept())
	}
}

// Row 10: who has a file open writes on into what was replaced, without an error.
func TestRestoreStopsWhoUsesItAndStartsExactlyThose(t *testing.T) {
	s := newStock(t, "a", "b")
	units := s.service("app.service", "cd srv/a; exec 3>>log; while :; do echo x >&3; sleep 0.01; done")
	s.service("idle.service", "sleep 1000")
	s.sh("cp idle.service.script stopped.service.script")
	s.take("/srv/a")
	idle := units.procs("idle.service")
	s.done(s.restore(true))
	if len(units.procs("app.service")) > 0 {
		t.Error("it was not left stopped")
	}
	o := s.apply(t.Context(), "r-1", Operation{Op: DoStart})
	if o.State != opDone || len(units.procs("app.service")) == 0 || len(units.procs("stopped.service")) > 0 || !slices.Equal(idle, units.procs("idle.service")) {
		t.Errorf("%+v", o)
	}
	s.is("old", "/srv/a")
	if s.apply(t.Context(), "r-1", Operation{Op: DoStart}).State != opAlready {
		t.Error("they were started twice")
	}
}

// What was stopped under the new system may not be in the old one: that made a
// restore stuck.
func TestUnitsThatOnlyTheOtherSystemHasAreNotStarted(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "cd srv/a; sleep 1000")
	s.service("new.service", "cd srv/a; sleep 1000")
	s.take("/srv/a")
	s.done(s.restore(true))
	must(t, os.Remove(s.path("new.service.script"))) // the old system is activated
	o := s.apply(t.Context(), "r-1", Operation{Op: DoStart})
	if o.State != opDone || len(units.procs("app.service")) == 0 || strings.Contains(o.Message, "new.service") {
		t.Errorf("%s: %s", o.State, o.Message)
	}
}

// brokenUnits has one unit that does not start.
type brokenUnits struct {
	fakeUnits
	broken string
}

func (b brokenUnits) Do(ctx context.Context, verb string, units ...string) error {
	rest := slices.DeleteFunc(slices.Clone(units), func(u string) bool { return u == b.broken && verb == "start" })
	if err := b.fakeUnits.Do(ctx, verb, rest...); err != nil || len(rest) == len(units) {
		return err
	}
	return errors.New("it fails")
}

// The hint named all units, also those that had come up.
func TestUnitsThatDoNotStartAreAllThatIsLeftToStart(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	s.service("broken.service", "cd srv/a; exec sleep 1000")
	s.take("/srv/a")
	s.done(s.restore(true))
	s.Units = brokenUnits{units, "broken.service"}
	o := s.apply(t.Context(), "r-1", Operation{Op: DoStart})
	if hint := strings.Join(o.Hint, "\n"); o.State != opFailed || len(units.procs("app.service")) == 0 || strings.Contains(hint, "app.service") || !strings.Contains(hint, "start -- broken.service") {
		t.Errorf("%s: %s\n%s", o.State, o.Message, hint)
	}
}

// onceUnits starts nothing but oneshots, which end at once if nobody waits for it.
type onceUnits struct{ fakeUnits }

func (o onceUnits) Do(ctx context.Context, verb string, units ...string) error {
	switch verb {
	case "queue":
		return nil
	case "start":
		return errors.New("it takes hours")
	}
	return o.fakeUnits.Do(ctx, verb, units...)
}

// It was active when the restore came, ran again after it, and was said to fail.
func TestOneshotThatEndedWellAfterARestoreIsNoFailure(t *testing.T) {
	for result, want := range map[string]string{"success": opDone, "exit-code": opFailed} {
		s := newStock(t, "a")
		s.Units = onceUnits{s.service("nightly.service", "cd srv/a; exec sleep 1000")}
		s.file("nightly.service.properties", "Type=oneshot\nResult="+result+"\n")
		s.take("/srv/a")
		if o := s.restore(false); o.State != want {
			t.Errorf("%s: %s %s", result, o.State, o.Message)
		}
		s.is("old", "/srv/a")
	}
}

func TestRestoreRefusesWithTheNamesOfWhoHoldsIt(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	hold := func(shell string) *exec.Cmd {
		c := exec.Command("bash", "-c", shell)
		c.Dir = s.dir
		out, _ := c.StdoutPipe()
		must(t, c.Start())
		out.Read(make([]byte, 1))
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		return c
	}
	for name, shell := range map[string]string{
		"an open file":         "exec 3<srv/a/f; echo; read -t 1000 <> <(:)",
		"a folder":             "cd srv/a; echo; read -t 1000 <> <(:)",
		"its own namespace":    "exec unshare -m --propagation private bash -c 'echo; read -t 1000 <> <(:)'",
		"a memory mapped file": "cp /bin/bash srv/a/prog; exec srv/a/prog -c 'echo; read -t 1000 <> <(:)'",
	} {
		t.Run(name, func(t *testing.T) {
			c := hold(shell)
			s.refused(s.restore(false), fmt.Sprintf("process %d", c.Process.Pid))
			s.is("new", "/srv/a")
			c.Process.Kill()
			c.Wait()
		})
	}
	s.service("dbus.service", "exec 3<srv/a/f; sleep 1000")
	s.refused(s.restore(false), "dbus.service")
	if names := s.beside(); len(names) != 1 || len(s.kept()) != 0 {
		t.Errorf("left behind: %v %v", names, s.kept())
	}
}

// Row 21: a snapshot has an empty folder where a subvolume is nested.
func TestRestoreMovesNestedSubvolumesAlong(t *testing.T) {
	s := newStock(t, "a")
	s.sh("btrfs -q subvolume create srv/a/early; mkdir srv/a/dir; btrfs -q subvolume create srv/a/dir/gone; echo deep > srv/a/early/deep; btrfs -q subvolume create srv/a/early/in")
	s.take("/srv/a")
	if len(s.set.Snapshots) != 4 {
		t.Fatalf("%+v", s.set)
	}
	s.mount("a/early", "/srv/early") // mounted elsewhere as well: it stays
	s.sh("mkdir -m 750 srv/a/new; btrfs -q subvolume create srv/a/new/late; echo x > srv/a/new/late/x; btrfs -q subvolume delete srv/a/dir/gone; echo changed > srv/a/early/deep")
	s.done(s.restore(false, s.set.Snapshots[0]))
	s.is("old", "/srv/a")
	if s.read("srv/a/early/deep") != "changed\n" || s.read("srv/a/new/late/x") != "x\n" || s.read("srv/early/deep") != "changed\n" || !exists(s.path("srv/a/early/in")) {
		t.Error("what was nested did not move along")
	}
	if st, err := os.Stat(s.path("srv/a/new")); err != nil || st.Mode().Perm() != 0o750 {
		t.Error(err)
	}
	s.sh("umount srv/early") // now all of the set, which brings the deleted one back
	s.file("srv/a/f", "new")
	s.done(s.restore(false))
	if s.read("srv/a/early/deep") != "deep\n" || s.read("srv/a/new/late/x") != "x\n" {
		t.Error("a nested one of the set was not restored")
	}
	if _, err := btrfs.Describe(s.path("srv/a/dir/gone")); err != nil {
		t.Error(err)
	}
}

func TestRestoreThatFailsIsTakenBack(t *testing.T) {
	s := newStock(t, "a", "b")
	s.file("srv/b/place/file", "in the way")
	units := s.service("app.service", "cd srv/a; sleep 1000")
	s.take("/srv/a", "/srv/b")
	s.sh("rm -r srv/b/place; btrfs -q subvolume create srv/b/place; echo precious > srv/b/place/data")
	s.refused(s.restore(false), "/b/place is in its place")
	s.is("new", "/srv/a", "/srv/b")
	if s.read("srv/b/place/data") != "precious\n" || len(units.procs("app.service")) == 0 || len(s.kept()) != 0 {
		t.Error("it is not as it was")
	}
	if names := s.beside(); len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
}

// asItWas checks that a restore that failed has left no trace.
func (s *stock) asItWas(units fakeUnits) {
	s.t.Helper()
	s.is("new", "/srv/a", "/srv/b", "/disk/a", "/disk/b")
	s.file("srv/a/written", "since")
	at := s.dir
	for at == s.dir { // it was started just now, and is to go elsewhere
		at, _ = os.Readlink("/proc/" + strings.Join(units.procs("app.service"), "") + "/cwd")
	}
	if s.read("disk/a/written") != "since" || at != s.path("srv/a") || mountOf(s.mounts(), s.path("srv/a")).Root != "/a" {
		s.t.Errorf("app.service is in %q, mounted is %+v", at, mountOf(s.mounts(), s.path("srv/a")))
	}
	if names := s.beside(); len(names) != 2 || len(s.kept()) != 0 {
		s.t.Errorf("left behind: %v %v", names, s.kept())
	}
}

// The copy was destroyed below the mount that showed it: every write was lost.
func TestMountsOfARestoreThatIsTakenBackShowWhatTheyDid(t *testing.T) {
	for moment, fails := range map[string]func(*stock){
		"cleared": func(s *stock) { s.mount("b", "/srv/b") },
		"mounted": func(s *stock) {
			s.sh("chattr +i state/runs/r-1")
			s.t.Cleanup(func() { exec.Command("chattr", "-i", s.path("state/runs/r-1")).Run() })
		},
	} {
		t.Run(moment, func(t *testing.T) {
			s := newStock(t, "a", "b")
			units := s.service("app.service", "cd srv/a; exec sleep 1000")
			s.take("/srv/a", "/srv/b")
			s.Moment = func(at string) {
				if at == moment {
					fails(s)
				}
			}
			if o := s.restore(false); o.State != opFailed || strings.Contains(o.Message, "taken back") {
				t.Errorf("%+v", o)
			}
			s.asItWas(units)
			s.Moment = nil
			s.sh("chattr -i state/runs/r-1")
			s.done(s.restore(false))
			s.is("old", "/srv/a", "/srv/b")
		})
	}
}

func TestCopyThatSomebodyUsesIsKept(t *testing.T) {
	for at, want := range map[string]string{"srv/a": "could not be taken back: cannot unmount", "disk/a": "is kept: process"} {
		t.Run(at, func(t *testing.T) {
			s := newStock(t, "a", "b")
			units := s.service("app.service", "cd srv/a; exec sleep 1000")
			s.take("/srv/a", "/srv/b")
			c := exec.Command("sleep", "1000")
			defer func() { c.Process.Kill(); c.Wait() }()
			s.Moment = func(moment string) {
				switch moment {
				case "cleared":
					s.mount("b", "/srv/b")
				case "exchanged": // the copy has the name, and is mounted below /disk
					s.sh("mount -o subvol=a %s srv/a", s.device())
					c.Dir = s.path(at)
					must(t, c.Start())
				}
			}
			if o := s.restore(false); o.State != opFailed || !strings.Contains(o.Message, want) || o.Intact != strings.Contains(want, "is kept") {
				t.Errorf("%+v", o)
			}
			must(t, os.WriteFile(fmt.Sprintf("/proc/%d/cwd/w", c.Process.Pid), nil, 0o600))
			if running := len(units.procs("app.service")) > 0; running != (at == "disk/a") {
				t.Errorf("app.service runs: %t", running)
			}
			s.Moment = nil
			c.Process.Kill()
			c.Wait()
			s.done(s.restore(false))
			s.is("old", "/srv/a", "/srv/b")
		})
	}
}

// killed is a restore that ends in its middle, as with a power cut.
func (s *stock) killed(moment string, snaps ...Snapshot) {
	s.t.Helper()
	s.cut(moment, Operation{Op: DoData, Data: &Data{Snapshots: snaps}})
}

// cut is killed, of any operation.
func (s *stock) cut(moment string, op Operation) {
	s.t.Helper()
	_, err := s.recipePut(s.t.Context(), Recipe{Run: "r-1", Operations: []Operation{op}})
	must(s.t, err)
	c := exec.Command(os.Args[0], "as-agent", "-root", s.Root, "restore", "r-1")
	c.Env = append(os.Environ(), "TEST_PREFIX="+s.dir, "TEST_KILL_AT="+moment)
	out, err := c.CombinedOutput()
	if err == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		s.t.Fatalf("it was not killed: %v %s", err, out)
	}
}

func TestRestoreKilledAnywhereIsFinished(t *testing.T) {
	for _, moment := range []string{"prepared", "to stop", "stopped", "unmounting", "unmounted", "cleared", "exchanged a", "exchanged b", "exchanged", "mounted"} {
		t.Run(moment, func(t *testing.T) {
			s := newStock(t, "a", "b")
			s.sh("btrfs -q subvolume create srv/a/n; echo x > srv/a/n/x")
			units := s.service("app.service", "cd srv/b; sleep 1000")
			s.take("/srv/a", "/srv/b")
			s.killed(moment, s.set.Snapshots[:2]...)
			c := exec.Command(os.Args[0], "as-agent", "-root", s.Root, "restore", "r-1")
			c.Env = append(os.Environ(), "TEST_PREFIX="+s.dir)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			s.is("old", "/srv/a", "/srv/b")
			kept := s.kept()
			if len(kept) != 2 || s.read("srv/a/n/x") != "x\n" || len(units.procs("app.service")) == 0 {
				t.Errorf("kept %+v, app %v", kept, units.procs("app.service"))
			}
			for _, k := range kept {
				s.is("new", strings.TrimPrefix(k.Path, s.dir))
			}
			if names := s.beside(); len(names) != 5 { // 3 snapshots with the nested one's
				t.Errorf("%d in the folder: %v", len(names), names)
			}
		})
	}
}

// What holds a mount for a moment, as the making of a sandbox does, made a restore fail.
func TestRestoreWaitsForAMountThatIsBusyForAMoment(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	var held *os.File
	s.Moment = func(moment string) {
		if moment == "unmounting" {
			held, _ = os.Open(s.path("srv/a"))
			time.AfterFunc(300*time.Millisecond, func() { held.Close() })
		}
	}
	s.done(s.restore(false))
	if s.is("old", "/srv/a"); held == nil {
		t.Error("it was not held")
	}
}

// Row 17: who looks while a mount is replaced finds nothing there, and what a timer's
// unit writes at that moment would lie below the mount, where nobody looks.
func TestWhatIsWrittenWhileNothingIsMountedIsToldOf(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	s.killed("exchanged", s.set.Snapshots[0])
	s.file("srv/a/log", "of a timer's unit")
	o := s.restore(false)
	s.done(o)
	if s.is("old", "/srv/a"); !strings.Contains(o.Message, "srv/a while it was not mounted lies below the mount: log") {
		t.Error(o.Message)
	}
	s.sh("mkdir view; mount --bind srv view")
	is := s.read("view/a/log")
	s.sh("umount view")
	if is != "of a timer's unit" {
		t.Error(is)
	}
	o = s.restore(false, s.kept()...)
	if s.done(o); strings.Contains(o.Message, "below") {
		t.Error(o.Message)
	}
}

// Row 19: such a mount would show the replaced one for ever.
func TestRestoreRefusesWhatItCouldNotReach(t *testing.T) {
	s := newStock(t, "a", "b", "c", "d")
	s.take("/srv/a", "/srv/b", "/srv/c", "/srv/d")
	info, _ := btrfs.Describe(s.path("srv/a"))
	s.file("etc/fstab", fmt.Sprintf("# subvolid=%d\nUUID=x /srv/a btrfs noatime,subvolid=%d 0 0\n", info.ID+1, info.ID))
	s.refused(s.restore(false, s.set.Snapshots[0]), "/etc/fstab mounts it by subvolid")
	s.sh("btrfs subvolume set-default srv/b")
	s.refused(s.restore(false, s.set.Snapshots[1]), "default subvolume")
	s.sh("mkdir srv/c/t; mount -t tmpfs none srv/c/t")
	s.refused(s.restore(false, s.set.Snapshots[2]), "srv/c/t (tmpfs)")
	s.sh("umount srv/c/t; truncate -s 0 srv/d/swap; chattr +C srv/d/swap; fallocate -l 1M srv/d/swap; mkswap -q srv/d/swap; chmod 600 srv/d/swap; swapon srv/d/swap")
	defer s.sh("swapoff srv/d/swap")
	s.refused(s.restore(false, s.set.Snapshots[3]), "swap file")
	gone := s.set.Snapshots[2]
	gone.UUID = "11111111-1111-1111-1111-111111111111"
	s.refused(s.restore(false, gone), "is not there any more")
	gone.FSID = gone.UUID
	s.refused(s.restore(false, gone), "no Btrfs")
	top := s.set.Snapshots[2]
	top.Origin = ""
	s.refused(s.restore(false, top), "top level")
	s.is("new", "/srv/a", "/srv/b", "/srv/c", "/srv/d")
}

// Impermanence binds parts of one subvolume all over the host.
func TestRestoreBringsBindMountsBack(t *testing.T) {
	s := newStock(t, "a")
	s.file("srv/a/etc/id", "old id")
	s.sh("mkdir -p var/lib/x srv/a/lib/x srv/a/fresh var/fresh; touch etc/id; mount --bind srv/a/lib/x var/lib/x; mount -o bind srv/a/etc/id etc/id; mount -o remount,bind,ro var/lib/x; mount --bind srv/a/fresh var/fresh")
	defer func() { exec.Command("umount", s.path("var/lib/x"), s.path("etc/id"), s.path("var/fresh")).Run() }()
	s.take("/srv/a")
	snap := s.set.Snapshots[0]
	s.file("srv/a/etc/id", "new id")
	s.file("srv/a/lib/x/f", "new")
	s.done(s.restore(false, snap))
	if s.read("etc/id") != "old id" || exists(s.path("var/lib/x/f")) {
		t.Error("a bind mount shows what was replaced")
	}
	if err := os.WriteFile(s.path("var/lib/x/w"), nil, 0o600); err == nil {
		t.Error("a read-only mount came back writable")
	}
}

func TestRestoreOfTheRootExchangesOnly(t *testing.T) {
	s := newStock(t, "root")
	s.sh("mkdir -p srv/root/nix; btrfs -q subvolume create srv/root/nix/deployer; echo epoch > srv/root/nix/deployer/holder; echo old > srv/root/f")
	root := newAgent(Options{Root: s.Root, Prefix: s.path("srv/root"), Units: fakeUnits{s.dir}, Stdout: os.Stderr})
	_, err := root.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Stamp: stamp, Paths: []string{"/"}})
	isCode(t, err, "invalid") // beside, never inside
	s.take("/srv/root")
	held, _ := os.Open(s.path("srv/root/f"))
	op := Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots[:1]}}
	out := root.apply(t.Context(), "r-1", op)
	if out.State != opDone || !strings.Contains(out.Message, "reboot") {
		t.Fatalf("%+v", out)
	}
	s.is("new", "/srv/root") // runs on
	s.is("old", "/disk/root")
	for _, at := range []string{"srv/root", "disk/root"} { // one epoch, seen from both
		if s.read(at+"/nix/deployer/holder") != "epoch\n" {
			t.Errorf("%s has lost the agent's folder", at)
		}
	}
	s.file("srv/root/nix/deployer/holder", "written")
	if s.read("disk/root/nix/deployer/holder") != "written" {
		t.Error("the two roots have a folder each")
	}
	held.Close()
	if due, err := root.rootDue("r-1"); !due || err != nil {
		t.Errorf("a boot is due: %t %v", due, err)
	}
	s.file("srv/root/proc/sys/kernel/random/boot_id", "another\n") // a boot, from what was replaced
	if due, err := root.rootDue("r-1"); due || err == nil || !strings.Contains(err.Error(), "runs from another root") {
		t.Errorf("%t %v", due, err)
	}
	s.sh("umount -R srv/root; mount -o subvol=root %s srv/root", s.device()) // the boot
	s.is("old", "/srv/root")
	s.file("srv/root/proc/sys/kernel/random/boot_id", "another\n")
	if due, err := root.rootDue("r-1"); due || err != nil {
		t.Errorf("after the boot: %t %v", due, err)
	}
	if out := root.apply(t.Context(), "r-1", op); out.State != opAlready {
		t.Errorf("after the boot: %+v", out)
	}
}

// A restore would take back what the agent remembers.
func TestRestoreOfARootWithTheAgentsFolderIsRefused(t *testing.T) {
	s := newStock(t, "root")
	s.sh("mkdir -p srv/root/nix; mkdir -m 700 srv/root/nix/deployer")
	t.Cleanup(func() { exec.Command("umount", "-l", s.path("srv/root")).Run() }) // the agent has its folder open
	root := newAgent(Options{Root: s.path("srv/root/nix/deployer"), Prefix: s.path("srv/root"), Units: fakeUnits{s.dir}, Stdout: os.Stderr})
	s.take("/srv/root")
	if v := root.volume("/", root.mounts()); !v.Own {
		t.Errorf("%+v", v)
	}
	s.refused(root.apply(t.Context(), "r-1", Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots}}), "is no subvolume of its own")
	s.is("new", "/srv/root")
}

// putAway is a boot of a layout that makes its root anew; the agent runs on that.
func (s *stock) putAway() (root *agent, op Operation) {
	s.t.Helper()
	s.sh("btrfs -q subvolume create srv/root/nested; echo mine > srv/root/nested/file")
	s.take("/srv/root")
	s.sh(`umount srv/root; mkdir -p disk/old_roots; mv disk/root disk/old_roots/root-1; btrfs -q subvolume create disk/root
		btrfs -q subvolume create disk/root/nested; echo fresh > disk/root/f; mount -o subvol=root %s srv/root`, s.device())
	s.file("srv/root/proc/sys/kernel/random/boot_id", "of the new system\n")
	root = newAgent(Options{Root: s.Root, Prefix: s.path("srv/root"), Units: fakeUnits{s.dir}, Stdout: os.Stderr})
	return root, Return(s.set.Snapshots[0])
}

func TestRootThatWasPutAwayComesBackItself(t *testing.T) {
	s := newStock(t, "root")
	root, op := s.putAway()
	live, _ := btrfs.Describe(s.path("disk/old_roots/root-1"))
	out := root.apply(t.Context(), "r-1", op)
	if is, _ := btrfs.Describe(s.path("disk/root")); out.State != opDone || is.UUID != live.UUID || exists(s.path("disk/old_roots/root-1")) {
		t.Fatalf("%+v", out)
	}
	s.is("new", "/disk/root") // as it was when it was put away
	if s.read("disk/root/nested/file") != "mine\n" {
		t.Error("what was nested in it is lost")
	}
	kept := s.kept()
	if len(kept) != 1 || s.read(strings.TrimPrefix(kept[0].Path, s.dir)+"/f") != "fresh\n" {
		t.Errorf("kept: %+v", kept)
	}
	if due, err := root.rootDue("r-1"); !due || err != nil {
		t.Errorf("a boot is due: %t %v", due, err)
	}
	s.sh("umount srv/root; mv disk/root disk/old_roots/root-2; btrfs -q subvolume create disk/root; mount -o subvol=root %s srv/root", s.device())
	s.file("srv/root/proc/sys/kernel/random/boot_id", "of a system that puts it away again\n")
	if due, err := root.rootDue("r-1"); due || err != nil {
		t.Errorf("after the boot: %t %v", due, err)
	}
	if out := root.apply(t.Context(), "r-1", op); out.State != opAlready || !exists(s.path("disk/old_roots/root-2")) {
		t.Errorf("the next boot's business was undone: %+v", out)
	}
}

func TestRootThatCouldNotComeBackStaysPutAway(t *testing.T) {
	s := newStock(t, "root")
	root, op := s.putAway()
	root.Moment = func(at string) {
		if at == "cleared" {
			s.sh("mv disk/root disk/moved")
		}
	}
	if out := root.apply(t.Context(), "r-1", op); out.State != opFailed || !exists(s.path("disk/old_roots/root-1/nested/file")) {
		t.Errorf("%+v", out)
	}
	root.Moment = nil
	s.sh("mv disk/moved disk/root")
	s.done(root.apply(t.Context(), "r-1", op))
	s.is("new", "/disk/root")
}

// Who keeps a root keeps it: what a restore replaced does not come back, and
// what is in its place is left alone.
func TestRootThatNobodyPutAwayIsLeftAlone(t *testing.T) {
	s := newStock(t, "root")
	root := newAgent(Options{Root: s.Root, Prefix: s.path("srv/root"), Units: fakeUnits{s.dir}, Stdout: os.Stderr})
	s.take("/srv/root")
	op := Return(s.set.Snapshots[0])
	if out := root.apply(t.Context(), "r-1", op); out.State != opAlready {
		t.Errorf("in its place: %+v", out)
	}
	s.done(root.apply(t.Context(), "r-1", Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots}}))
	if out := root.apply(t.Context(), "r-2", op); out.State != opAlready {
		t.Errorf("replaced by a restore: %+v", out)
	}
	s.is("old", "/disk/root")
	op.Data.Snapshots[0].ParentUUID = "gone"
	s.refused(root.apply(t.Context(), "r-2", op), "not there any more: what is left of it is")
}

// cutShort kills an agent after the first snapshot of a set of two.
func (s *stock) cutShort() {
	s.t.Helper()
	c := exec.Command(os.Args[0], "as-agent", "serve")
	c.Env = append(os.Environ(), "TEST_PREFIX="+s.dir, "TEST_KILL_AT=snapshot")
	c.Stdin = strings.NewReader(`{"id":1,"op":"btrfs.snapshot","args":{"run":"r-1","dir":"/disk/snaps","stamp":"` + stamp + `","paths":["/srv/a","/srv/b"]}}` + "\n")
	if out, err := c.CombinedOutput(); err == nil || len(out) > 0 {
		s.t.Fatalf("%v %s", err, out)
	}
	if names := s.beside(); len(names) != 1 {
		s.t.Fatalf("it was to be killed after one: %v", names)
	}
}

// The run was aborted, not resumed: its snapshot was nobody's for ever.
func TestSetInterruptedGoesWithItsRun(t *testing.T) {
	s := newStock(t, "a", "b")
	s.cutShort()
	other, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: "20260102T030406Z", Paths: []string{"/srv/a"}})
	must(t, err)
	_, err = s.close(t.Context(), Closing{Run: "r-1", Outcome: "untouched"})
	must(t, err)
	if names := s.beside(); len(names) != 1 || names[0] != filepath.Base(other.Snapshots[0].Path) {
		t.Errorf("left: %v", names)
	}
	if files, _ := filepath.Glob(s.path("state/runs/r-1/set-*")); len(files) != 1 {
		t.Errorf("records: %v", files)
	}
}

// What could not be looked at was taken for gone: its record went, and the snapshot
// was nobody's. What is seen to be none keeps no record.
func TestSetInterruptedThatCannotBeSeenKeepsItsRecord(t *testing.T) {
	s := newStock(t, "a", "b")
	s.cutShort()
	bad := kernel
	bad.Open = func(string) (*os.File, error) { return nil, unix.EIO }
	records := func(fs Snapper, want int) {
		t.Helper()
		s.fs = fs
		_, err := s.close(t.Context(), Closing{Run: "r-1", Outcome: "untouched"})
		must(t, err)
		if files, _ := filepath.Glob(s.path("state/runs/r-1/set-*")); len(files) != want {
			t.Errorf("records: %v, with %v there", files, s.beside())
		}
	}
	records(bad, 1)
	left := s.path("disk/snaps/" + s.beside()[0])
	s.sh("btrfs -q subvolume delete %[1]s; mkdir %[1]s", left)
	records(kernel, 0)
}

func TestSetInterruptedIsTakenAgain(t *testing.T) {
	s := newStock(t, "a", "b")
	s.cutShort()
	s.take("/srv/a", "/srv/b")
	again, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a", "/srv/b"}})
	must(t, err)
	if names := s.beside(); len(names) != 2 || again.Snapshots[0].UUID != s.set.Snapshots[0].UUID {
		t.Errorf("%v %+v", names, again)
	}
}

// Nobody knew the snapshot any more, and its name refused every later try.
func TestSetThatCouldNotBeDeletedIsTakenAgain(t *testing.T) {
	s := newStock(t, "a", "b")
	bad := kernel
	bad.Snapshot = func(src, dir *os.File, name string) error {
		if len(s.beside()) > 0 {
			return unix.EIO
		}
		return btrfs.Snapshot(src, dir, name)
	}
	bad.Destroy = func(*os.File, string) error { return unix.ENOSPC }
	s.fs = bad
	_, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a", "/srv/b"}})
	if !errors.Is(err, unix.EIO) || !errors.Is(err, unix.ENOSPC) || len(s.beside()) != 1 {
		t.Fatalf("%v: %v", err, s.beside())
	}
	s.fs = kernel
	s.take("/srv/a", "/srv/b")
	if names := s.beside(); len(names) != 2 {
		t.Error(names)
	}
}

// Two subvolumes, one writer that updates a and then b: without a pause nearly
// every pair is inconsistent.
func TestPausedSetIsOneMoment(t *testing.T) {
	s := newStock(t, "a", "b")
	units := s.service("app.service", "i=0; while :; do i=$((i+1)); echo $i >> srv/b/n; echo $i >> srv/a/n; done")
	s.moves(units)
	for i := range 10 {
		set, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: fmt.Sprintf("20260102T0304%02dZ", i), Paths: []string{"/srv/a", "/srv/b"},
			Consistency: Paused, Units: []string{"app.service", "not-active.service"}, Generation: 7})
		must(t, err)
		a := strings.Count(read(t, set.Snapshots[0].Path+"/n"), "\n")
		b := strings.Count(read(t, set.Snapshots[1].Path+"/n"), "\n")
		if b-a > 1 || a > b || set.Consistency != Paused || set.Paused == 0 || !strings.Contains(set.Snapshots[0].Name, "-r-1-g7-a") {
			t.Errorf("a %d, b %d, %+v", a, b, set)
		}
	}
	s.moves(units)
	set, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a"}, Consistency: Stopped, Units: []string{"app.service"}})
	must(t, err)
	s.moves(units)
	if set.Consistency != Stopped {
		t.Error(set)
	}
}

func read(t *testing.T, at string) string {
	t.Helper()
	data, err := os.ReadFile(at)
	must(t, err)
	return string(data)
}

// moves checks that the writer goes on.
func (s *stock) moves(units fakeUnits) {
	s.t.Helper()
	was := s.read("srv/a/n")
	s.await(units, func() bool { return s.read("srv/a/n") != was && s.read("srv/a/n") != "" })
}

func (s *stock) await(units fakeUnits, done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			s.t.Fatalf("app.service does not go on: %v", units.procs("app.service"))
		}
		time.Sleep(time.Millisecond)
	}
}

// stillSet takes a set of a and calls what looks while it is taken.
func (s *stock) stillSet(how, unit string, look func()) error {
	s.t.Helper()
	fs := kernel
	fs.Snapshot = func(src, dir *os.File, name string) error {
		look()
		return btrfs.Snapshot(src, dir, name)
	}
	s.fs = fs
	_, err := s.snapshot(s.t.Context(), SnapshotArgs{Run: "r-0", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a"}, Consistency: how, Units: []string{unit}})
	return err
}

// Only what was "active" was: the set said stopped while a oneshot wrote.
func TestUnitsThatStartOrReloadAreKeptStill(t *testing.T) {
	for _, state := range []string{"activating", "reloading"} {
		for _, how := range []string{Paused, Stopped} {
			s := newStock(t, "a")
			units := s.service("app.service", "exec sleep 1000")
			s.file("app.service.state", state)
			must(t, s.stillSet(how, "app.service", func() {
				frozen := strings.Contains(read(t, cgroups()+units.cgroup("app.service")+"/cgroup.events"), "frozen 1")
				if how == Paused && !frozen || how == Stopped && len(units.procs("app.service")) > 0 {
					t.Errorf("%s: it is not %s", state, how)
				}
			}))
			if len(units.procs("app.service")) == 0 {
				t.Errorf("%s: it was not started again", state)
			}
		}
	}
}

// A set refused to be taken where a unit that it pauses crashed again and again,
// and so the deployment that was to mend that.
func TestAUnitThatCrashesAgainAndAgainIsNoReasonToRefuseASet(t *testing.T) {
	s := newStock(t, "a")
	s.service("app.service", "exec sleep 1000")
	s.file("app.service.state", "activating")
	s.file("app.service.properties", "ControlGroup=\n")
	must(t, s.stillSet(Paused, "app.service", func() {}))
}

// wiredUnits stops web.service along with db.service, and while app.socket
// listens app.service always comes again.
type wiredUnits struct{ fakeUnits }

func (u wiredUnits) Do(ctx context.Context, verb string, units ...string) error {
	if verb == "stop" && slices.Contains(units, "db.service") {
		units = append(units, "web.service")
	}
	err := u.fakeUnits.Do(ctx, verb, units...)
	if verb == "stop" && slices.Contains(units, "app.service") && len(u.procs("app.socket")) > 0 {
		err = u.fakeUnits.Do(ctx, "start", "app.service")
	}
	return err
}

// A connection brought a service back, and it wrote into a set that was stopped.
func TestStoppedSetStaysStopped(t *testing.T) {
	for triggers, want := range map[string]string{"TriggeredBy=app.socket\n": "", "\n": "the set is not stopped: meanwhile something started app.service"} {
		s := newStock(t, "a")
		units := s.service("app.service", "exec sleep 1000")
		s.service("app.socket", "exec sleep 1000")
		s.file("app.service.properties", triggers)
		s.Units = wiredUnits{units}
		ran := false
		err := s.stillSet(Stopped, "app.service", func() { ran = len(units.procs("app.service")) > 0 })
		if want == "" && (err != nil || ran) || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v, it ran: %t, want %q", err, ran, want)
		}
		if names := s.beside(); len(names) > 0 && want != "" {
			t.Errorf("left: %v", names)
		}
		if len(units.procs("app.service")) == 0 || len(units.procs("app.socket")) == 0 {
			t.Error("they were not started again")
		}
	}
}

// Stopping db.service stopped web.service, and nobody started that again.
func TestWhatIsStoppedAlongIsStartedAgain(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("db.service", "cd srv/a; exec sleep 1000")
	s.service("web.service", "exec sleep 1000")
	s.file("db.service.properties", "RequiredBy=idle.service\n")
	s.file("idle.service.properties", "ConsistsOf=web.service\n")
	s.Units = wiredUnits{units}
	was := slices.Concat(units.procs("db.service"), units.procs("web.service"))
	again := func() {
		t.Helper()
		is := slices.Concat(units.procs("db.service"), units.procs("web.service"))
		if len(is) != 2 || is[0] == was[0] || is[1] == was[1] {
			t.Errorf("%v, then %v", was, is)
		}
		was = is
	}
	must(t, s.stillSet(Stopped, "db.service", func() {}))
	again()
	s.take("/srv/a")
	s.done(s.restore(false))
	again()
	s.service("sshd.service", "exec sleep 1000")
	s.file("web.service.properties", "BoundBy=sshd.service\n")
	_, err := s.pausable(t.Context(), SnapshotArgs{Consistency: Stopped, Units: []string{"db.service"}})
	isCode(t, err, "busy")
}

func TestPauseEndsWhateverHappens(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "i=0; while :; do i=$((i+1)); echo $i > srv/a/n; done")
	args := `{"id":1,"op":"btrfs.snapshot","args":{"run":"r-1","dir":"/disk/snaps","stamp":"` + stamp + `","paths":["/srv/a"],"consistency":"%s","units":["app.service"]}}` + "\n"
	for _, how := range []string{Paused, Stopped} {
		c := exec.Command(os.Args[0], "as-agent", "serve")
		c.Env = append(os.Environ(), "TEST_PREFIX="+s.dir, "TEST_KILL_AT=paused")
		c.Stdin = strings.NewReader(fmt.Sprintf(args, how))
		if out, err := c.CombinedOutput(); err == nil || len(out) > 0 {
			t.Fatalf("it was not killed: %v %s", err, out)
		}
		s.moves(units)
	}
	slow := kernel
	slow.Snapshot = func(src, dir *os.File, name string) error {
		s.moves(units) // the deadline comes first
		return btrfs.Snapshot(src, dir, name)
	}
	s.fs = slow
	_, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-2", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a"}, Consistency: Paused, Units: []string{"app.service"}})
	isCode(t, err, "timeout")
	if names := s.beside(); len(names) != 0 {
		t.Errorf("a set that was not paused was left: %v", names)
	}
	s.moves(units)
}

func TestDeleteGuard(t *testing.T) {
	s := newStock(t, "a", "b")
	s.take("/srv/a")
	snap := s.set.Snapshots[0]
	gone := func(want string, snaps ...Snapshot) {
		t.Helper()
		list, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: snaps, Wait: 10})
		must(t, err)
		if got := list[0].State + " " + list[0].Why; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	s.sh("btrfs -q subvolume snapshot -r srv/a disk/snaps/20260102T030405Z-r-1-forged; mkdir -p disk/.snapshots/7; btrfs -q subvolume snapshot -r srv/a disk/.snapshots/7/snapshot; btrfs -q subvolume snapshot -r srv/a disk/a.20260102T0304")
	all, err := s.snapshots(t.Context(), DiscoverArgs{Paths: []string{"/disk"}, Foreign: true})
	must(t, err)
	makers := map[string]int{}
	for _, one := range all {
		makers[one.Maker]++
		if one.UUID != snap.UUID {
			gone("refused /"+one.Name+" was not made by deployer", one)
			if one.Maker == "snapper" {
				s.done(s.restore(false, one)) // but it can be restored from
			}
		}
	}
	if makers["snapper"] != 1 || makers["btrbk"] != 1 || makers["deployer"] != 2 {
		t.Error(makers)
	}
	live, _ := btrfs.Describe(s.path("srv/a"))
	gone("not made by deployer", Snapshot{FSID: snap.FSID, UUID: live.UUID})

	s.mount(snap.Name, "/mnt")
	gone("mounted at", snap)
	s.sh("umount mnt")
	ns := exec.Command("unshare", "-m", "--propagation", "private", "bash", "-c", fmt.Sprintf("mount -o subvol=%q %s %s; echo; read -t 1000 <> <(:)", snap.Name, s.device(), s.path("mnt")))
	out, _ := ns.StdoutPipe()
	must(t, ns.Start())
	out.Read(make([]byte, 1))
	gone("in a mount namespace of its own", snap)
	ns.Process.Kill()
	ns.Wait()
	s.sh("btrfs subvolume set-default %d disk", snap.ID)
	gone("default", snap)
	s.sh("btrfs subvolume set-default 5 disk")
	store, _ := s.store(true)
	must(t, store.hold(HoldArgs{UUID: snap.UUID, By: "off-host", Reason: "the next copy starts from it"}))
	gone("held by off-host", snap)
	must(t, store.hold(HoldArgs{UUID: snap.UUID, By: "off-host"}))
	_, err = s.recipePut(t.Context(), Recipe{Run: "r-9", Snapshots: []Snapshot{snap}})
	must(t, err)
	gone("run r-9 may still go back", snap)
	must(t, os.RemoveAll(s.path("state/runs/r-9")))
	kept := s.kept()[0]
	gone("run r-1 may still go back", kept)
	must(t, store.writeJSON(runFile("r-1", "closing.json"), Closing{Run: "r-1", Outcome: "committed"}))
	s.sh("btrfs -q subvolume create %q/inner", kept.Path)
	gone("nested", kept)
	s.sh("btrfs -q subvolume delete %q/inner", kept.Path)
	gone("freed", kept, snap)
	gone("gone", snap)
	if exists(kept.Path) || exists(snap.Path) || !exists(s.path("disk/.snapshots/7/snapshot")) {
		t.Error("the wrong ones are gone")
	}
}

// What could not be read held nothing, and was overwritten by the next hold.
func TestDeleteRefusesWhereItsGuardCannotBeRead(t *testing.T) {
	for file, content := range map[string]string{"holds.json": "{", "runs/r-9/recipe.json": "{", "runs/r-9/guard.json": "[]"} {
		t.Run(file, func(t *testing.T) {
			s := newStock(t, "a")
			s.take("/srv/a")
			store, err := s.store(true)
			must(t, err)
			must(t, store.writeJSON(runFile("r-9", "closing.json"), Closing{Run: "r-9", Outcome: "stuck"}))
			s.file("state/"+file, content)
			list, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: s.set.Snapshots})
			if err != nil || list[0].State != "refused" || !strings.Contains(list[0].Why, file) {
				t.Errorf("%v, %+v", err, list)
			}
			if err := store.hold(HoldArgs{UUID: "u", By: "off-host", Reason: "the next copy starts from it"}); (err != nil) != (file == "holds.json") {
				t.Error(err)
			}
			if got := s.read("state/" + file); got != content {
				t.Errorf("it was overwritten: %q", got)
			}
		})
	}
}

// By its uuid alone, what a person had taken for live data was deleted.
func TestDeleteRefusesWhatSomebodyHasPutInPlace(t *testing.T) {
	s := newStock(t, "root")
	s.sh("btrfs -q subvolume create srv/root/own; mkdir -p srv/root/own/snapshots")
	set, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-0", Dir: "/disk/root/own/snapshots", Stamp: stamp, Paths: []string{"/disk/snaps"}})
	must(t, err)
	s.take("/srv/root")
	s.done(s.restore(false, s.set.Snapshots[0]))
	store, _ := s.store(true)
	for _, run := range []string{"r-0", "r-1"} {
		must(t, store.writeJSON(runFile(run, "closing.json"), Closing{Run: run, Outcome: "committed"}))
	}
	kept, snap, along := s.kept()[0], s.set.Snapshots[0], set.Snapshots[0]
	is := func(want string, snap Snapshot) {
		t.Helper()
		list, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: []Snapshot{snap}, Wait: 10})
		must(t, err)
		if got := list[0].State + " " + list[0].Why; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	s.sh("umount srv/root; mkdir disk/data; mv %q disk/data/live", kept.Path)
	is("refused it is /data/live by now, not /snaps/", kept)
	s.sh("mv disk/data/live disk/data/%q", filepath.Base(kept.Path))
	is("refused it is /data/", kept)
	s.sh("mv disk/data/%q disk/snaps", filepath.Base(kept.Path))
	s.sh("btrfs property set -f %q ro false", snap.Path)
	is("refused somebody has made it writable", snap)
	s.sh("mv %q disk/data", snap.Path)
	is("refused it is /data/", snap)
	s.sh("mv disk/root disk/old") // with the folder of snapshots in it
	is("freed", along)
	is("freed", kept)
}

// The put-aside one was exchanged, and what was asked for stayed as it was.
func TestSnapshotOfOthersIsOfWhatHasItsNameAfterARestore(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	s.sh("mkdir -p disk/.snapshots/7; btrfs -q subvolume snapshot -r srv/a disk/.snapshots/7/snapshot")
	s.done(s.restore(false))
	all, err := s.snapshots(t.Context(), DiscoverArgs{Paths: []string{"/disk"}, Foreign: true})
	must(t, err)
	i := slices.IndexFunc(all, func(one Snapshot) bool { return one.Maker == "snapper" })
	if i < 0 || all[i].Origin != "a" || all[i].Source != s.path("srv/a") {
		t.Fatalf("%+v", all)
	}
	s.done(s.restore(false, all[i]))
	s.is("new", "/srv/a")
}

// One that was cut short is done by the next: nothing else is deleted.
func TestDeleteCutShortIsDoneAgain(t *testing.T) {
	s := newStock(t, "a", "b", "c")
	s.take("/srv/a", "/srv/b")
	_, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-2", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/c"}})
	must(t, err)
	store, _ := s.store(true)
	must(t, store.writeJSON(runFile("r-1", "closing.json"), Closing{Run: "r-1", Outcome: "committed"}))
	func() {
		defer func() { s.Moment, _ = nil, recover() }()
		s.Moment = func(moment string) { panic(moment) }
		s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: s.set.Snapshots})
		t.Error("it was not cut short")
	}()
	list, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: s.set.Snapshots, Wait: 10})
	must(t, err)
	if len(list) != 2 || list[0].State != "gone" || list[1].State != "freed" || len(s.beside()) != 1 {
		t.Errorf("%+v, %q", list, s.beside())
	}
}

func TestPreviewNamesWhatARestoreWouldDo(t *testing.T) {
	s := newStock(t, "a")
	s.sh("head -c 200000 /dev/urandom > srv/a/deleted")
	s.take("/srv/a")
	s.sh("rm srv/a/deleted; head -c 300000 /dev/urandom > srv/a/big")
	p, err := s.preview(t.Context(), PreviewArgs{Snapshot: s.set.Snapshots[0], Pins: true})
	must(t, err)
	if p.Pinned < 200000 || p.Pinned > 250000 || !slices.Equal(p.Lost, []string{"big", "later"}) || !slices.Equal(p.Coming, []string{"deleted"}) || p.Bytes < 300000 || p.Counts.Reverted != 1 || p.Temporary == "" {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(p.Temporary); !os.IsNotExist(err) {
		t.Errorf("the temporary snapshot is still there: %v", err)
	}
	if p, _ := s.preview(t.Context(), PreviewArgs{Snapshot: s.set.Snapshots[0], Max: 1}); len(p.Lost) != 1 || p.Counts.Lost != 2 {
		t.Errorf("%+v", p)
	}
	s.done(s.restore(false))
	p, err = s.preview(t.Context(), PreviewArgs{Snapshot: s.kept()[0]}) // which is writable
	must(t, err)
	if !slices.Equal(p.Coming, []string{"big", "later"}) || !slices.Equal(p.Lost, []string{"deleted"}) || len(s.beside()) != 2 {
		t.Errorf("%+v, %q", p, s.beside())
	}
}

func TestFilesComeOutOfASnapshot(t *testing.T) {
	s := newStock(t, "a")
	s.sh("mkdir -p 'srv/a/d/-x\ny'; echo in > 'srv/a/d/-x\ny/f'; chmod 640 'srv/a/d/-x\ny/f'; chown 12:34 'srv/a/d/-x\ny/f'; ln -s /etc srv/a/link; ln -s nowhere srv/a/d/l")
	s.take("/srv/a")
	r, err := s.files(t.Context(), FilesArgs{Snapshot: s.set.Snapshots[0], Path: "f", To: "/srv/a/f"})
	must(t, err)
	if s.read("srv/a/f") != "old" || s.read(r.Kept) != "new" {
		t.Errorf("%+v", r)
	}
	r, err = s.files(t.Context(), FilesArgs{Snapshot: s.set.Snapshots[0], Path: "/d", To: "/etc/d"})
	must(t, err)
	st, err := os.Lstat(s.path("etc/d/-x\ny/f"))
	must(t, err)
	if *ownerOf(st) != (Owner{12, 34}) || st.Mode() != 0o640 || r.Kept != "" || !lexists(s.path("etc/d/l")) {
		t.Errorf("%v %+v", st.Mode(), r)
	}
	for path, code := range map[string]string{"none": "not-found", "link/passwd": "failed", "../../x": "not-found"} {
		args := FilesArgs{Snapshot: s.set.Snapshots[0], Path: path, To: "/etc/out"}
		_, dry := s.filesDry(t.Context(), args)
		_, err := s.files(t.Context(), args)
		if err == nil || asError(err).Code != code || exists(s.path("etc/out")) || dry == nil || dry.Error() != err.Error() || strings.Contains(err.Error(), "/proc/") {
			t.Errorf("%s: %v, dry %v", path, err, dry)
		}
	}
}

func TestADryRunOfOneFileChecksWhatTheRealOneDoes(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	for to, want := range map[string]string{"/srv/a/f": "there", "/srv/a/else": "", "/srv/none/f": "error", "relative": "error", "/": "error"} {
		r, err := s.filesDry(t.Context(), FilesArgs{Snapshot: s.set.Snapshots[0], Path: "f", To: to})
		if (err != nil) != (want == "error") || r.There != (want == "there") {
			t.Errorf("%s: %+v %v", to, r, err)
		}
	}
	if s.read("srv/a/f") != "new" {
		t.Error("a dry one wrote")
	}
}

// Root wrote where the owner of a folder had let a link lead.
func TestFileOutOfASnapshotFollowsNoLink(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	s.sh("mkdir -p etc home/alice; ln -s %q home/alice/docs", s.path("etc"))
	_, err := s.files(t.Context(), FilesArgs{Snapshot: s.set.Snapshots[0], Path: "f", To: "/home/alice/docs/f"})
	if err == nil || asError(err).Code != "invalid" || !strings.Contains(err.Error(), "/home/alice/docs goes through a symbolic link, to /etc") || exists(s.path("etc/f")) {
		t.Error(err)
	}
}

// The second one failed after the exchange, and nothing named what it had kept.
func TestFileOutOfASnapshotTwiceWithinASecond(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	kept := map[string]string{}
	for _, was := range []string{"one", "two", "three"} {
		s.file("srv/a/f", was)
		r, err := s.files(t.Context(), FilesArgs{Snapshot: s.set.Snapshots[0], Path: "f", To: "/srv/a/f"})
		must(t, err)
		kept[r.Kept] = was
	}
	for at, was := range kept {
		if s.read(at) != was {
			t.Errorf("%s is %q, want %q", at, s.read(at), was)
		}
	}
	names, _ := filepath.Glob(s.path("srv/a/.new*"))
	if len(kept) != 3 || len(names) != 0 || s.read("srv/a/f") != "old" {
		t.Errorf("%v %v", kept, names)
	}
}

// A look made a file system writable that its administrator had made read-only.
func TestAReadOnlyFileSystemStaysSo(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	s.take("/srv/a")
	snap, running := s.set.Snapshots[0], units.procs("app.service")
	s.sh("mount -o remount,ro disk")
	if _, err := s.preview(t.Context(), PreviewArgs{Snapshot: snap}); err == nil || !strings.Contains(err.Error(), s.device()+" is mounted read-only") {
		t.Error(err)
	}
	_, err := s.files(t.Context(), FilesArgs{Snapshot: snap, Path: "f", To: "/etc/f"})
	must(t, err)
	_, err = s.verb("send", text(SendArgs{FSID: snap.FSID, UUID: snap.UUID})).Output()
	must(t, err)
	gone, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: s.set.Snapshots})
	if err != nil || gone[0].State != "refused" || !strings.Contains(gone[0].Why, "is mounted read-only") {
		t.Errorf("%v, %+v", err, gone)
	}
	s.refused(s.restore(false), "read-only file system")
	if now := units.procs("app.service"); !slices.Equal(now, running) || s.read("etc/f") != "old" {
		t.Errorf("it was stopped for a restore that cannot be: %v, %v", running, now)
	}
	if m := mountOf(s.mounts(), s.path("disk")); !strings.HasPrefix(m.Super, "ro,") {
		t.Error(m.Super)
	}
}

// A folder's name is no pattern.
func TestPreviewsThatWereCutShortGoFromAnyFolder(t *testing.T) {
	s := newStock(t, "a")
	s.sh("mkdir 'disk/[x]'; btrfs -q subvolume snapshot -r disk/a 'disk/[x]/%sold'; btrfs -q subvolume create 'disk/[x]/%smine'", previewName, previewName)
	dir, err := btrfs.Open(s.path("disk/[x]"))
	must(t, err)
	defer dir.Close()
	forget(dir, time.Now())
	if exists(s.path("disk/[x]/"+previewName+"old")) || !exists(s.path("disk/[x]/"+previewName+"mine")) {
		t.Error("the wrong ones are gone")
	}
}

func TestDiscoverKnowsTheFileSystem(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	info, _ := btrfs.Describe(s.path("srv/a"))
	s.file("etc/fstab", fmt.Sprintf("UUID=x /srv/a btrfs subvolid=%d 0 0\n", info.ID))
	s.sh("btrfs quota enable disk; btrfs subvolume set-default %d disk", info.ID)
	d, err := s.discover(t.Context(), DiscoverArgs{Paths: []string{"/srv/a", "/disk"}})
	must(t, err)
	v, f := d.Volumes[0], d.Filesystems[0]
	if !v.Default || !slices.Equal(v.ByID, []string{"/etc/fstab"}) || v.FS != "btrfs" {
		t.Errorf("%+v", v)
	}
	if len(d.Filesystems) != 1 || f.Device != s.device() || f.Unallocated == 0 || f.MetadataSize == 0 || f.Total != 256<<20 || f.Operation != "" {
		t.Errorf("%+v", f)
	}
	if quotas := exists("/sys/fs/btrfs/" + f.FSID + "/qgroups"); !quotas {
		t.Error("quotas are not where they are looked for")
	}
	s.sh("btrfs quota disable disk")
}

func TestSetWithBadInputChangesNothing(t *testing.T) {
	s := newStock(t, "a")
	s.sh("mkdir ro; mount -o ro,subvol=snaps %s ro", s.device())
	defer s.sh("umount ro")
	args := SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a"}}
	for name, c := range map[string]struct {
		change func(*SnapshotArgs)
		code   string
	}{
		"read-only":        {func(a *SnapshotArgs) { a.Dir = "/ro" }, "failed"},
		"no run":           {func(a *SnapshotArgs) { a.Run = "../x" }, "invalid"},
		"unknown level":    {func(a *SnapshotArgs) { a.Consistency = "perfect" }, "invalid"},
		"pause of nobody":  {func(a *SnapshotArgs) { a.Consistency = Paused }, "invalid"},
		"pause of the bus": {func(a *SnapshotArgs) { a.Consistency, a.Units = Paused, []string{"dbus.service"} }, "invalid"},
		"all of it":        {func(a *SnapshotArgs) { a.Paths = []string{"/disk"}; a.Dir = "/disk/snaps" }, "invalid"},
	} {
		bad := args
		c.change(&bad)
		if _, err := s.snapshot(t.Context(), bad); err == nil || asError(err).Code != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	nobody := exec.Command("/proc/self/exe", "as-agent", "serve")
	nobody.Env = append(os.Environ(), "TEST_PREFIX="+s.dir)
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	nobody.Stdin = strings.NewReader(`{"id":1,"op":"btrfs.snapshot","args":{"run":"r-1","stamp":"x","paths":["/srv/a"]}}` + "\n")
	if out, err := nobody.Output(); !strings.Contains(string(out), `"denied"`) {
		t.Errorf("no permission: %s %v", out, err)
	}
	if names := s.beside(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	files, _ := fs.Glob(os.DirFS(s.Root), "runs/*/set-*")
	if len(files) != 0 {
		t.Errorf("records of nothing: %v", files)
	}
}

// Rows 28 and 29: with data full all works; with metadata full the exchange
// does not, until the ballast is gone.
func TestRestoreWithAFullDisk(t *testing.T) {
	for _, full := range []string{"data", "metadata"} {
		t.Run(full, func(t *testing.T) {
			s := newStock(t, "a")
			s.take("/srv/a")
			fill := func() error {
				f, err := os.Create(s.path("disk/big"))
				for data := make([]byte, 1<<20); err == nil; err = errors.Join(err, f.Sync()) {
					rand.Read(data)
					_, err = f.Write(data)
				}
				return errors.Join(err, f.Close())
			}
			if err := fill(); !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			if full == "metadata" {
				st, _ := os.Stat(s.path("disk/big"))
				must(t, os.Truncate(s.path("disk/big"), st.Size()-30<<20))
				s.sh("sync")
				small, err := os.Create(s.path("disk/small"))
				for i := 0; err == nil; i++ {
					err = unix.Fsetxattr(int(small.Fd()), fmt.Sprint("user.", i), make([]byte, 14000), 0)
				}
				small.Close()
				for i := 0; !errors.Is(err, unix.ENOSPC) || i == 0; i++ {
					err = os.Mkdir(s.path(fmt.Sprint("disk/folder", i)), 0o700)
				}
				s.sh("sync")
			}
			live, err := btrfs.Open(s.path("disk"))
			must(t, err)
			u, err := btrfs.Usage(live)
			live.Close()
			if must(t, err); u.Unallocated > 2<<20 {
				t.Fatalf("not full: %+v", u)
			}
			s.done(s.restore(false))
			s.is("old", "/srv/a")
			if full == "metadata" && exists(s.path("disk/snaps/"+ballastName)) {
				t.Error("it was not full enough")
			}
		})
	}
}

// Row 25: an exchange is lost in a crash unless it was committed.
func TestRestoreIsOnTheDiskBeforeItAnswers(t *testing.T) {
	s := newStock(t, "a")
	s.sh("mount -o remount,commit=300 disk")
	s.take("/srv/a")
	s.done(s.restore(false))
	image := strings.TrimSpace(s.sh("losetup -nO BACK-FILE %s", s.device()))
	s.sh("cp --sparse=always %s crash.img; umount srv/a disk; mkdir crash; mount -o loop crash.img crash", image)
	defer s.sh("umount crash; mount -o loop %s disk", image)
	s.is("old", "crash/a")
	if kept, _ := filepath.Glob(s.path("crash/snaps/*-replaced-a")); len(kept) != 1 || read(t, kept[0]+"/f") != "new" {
		t.Error(kept)
	}
}

// Row 16: stopping a mount stops what requires it, and starting it starts nothing.
func TestRestoreStopsWhatRequiresTheMountAndWhatTriggers(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "exec sleep 1000")
	s.service("app.socket", "exec sleep 1000")
	s.file(mountUnit(s.path("srv/a"))+".properties", "RequiredBy=local-fs.target app.service off.service\n")
	s.file("app.service.properties", "TriggeredBy=app.socket\n")
	s.take("/srv/a")
	was := append(units.procs("app.service"), units.procs("app.socket")...)
	s.done(s.restore(false))
	is := append(units.procs("app.service"), units.procs("app.socket")...)
	if len(is) != 2 || is[0] == was[0] || is[1] == was[1] {
		t.Errorf("%v, then %v", was, is)
	}
}

// Row 15: a sandboxed service has a copy of every mount, which follows.
func TestRestoreReachesSandboxedServices(t *testing.T) {
	s := newStock(t, "a")
	s.sh("mkdir shared; mount --bind shared shared; mount --make-shared shared; mkdir shared/a; mount -o subvol=a %s shared/a", s.device())
	defer s.sh("umount -R shared")
	s.sh("umount srv/a")
	s.take("/shared/a")
	units := s.service("app.service", "exec unshare -m --propagation slave sh -c ': > ready; exec sleep 1000'")
	s.await(units, func() bool { return exists(s.path("ready")) })
	was := units.procs("app.service")
	s.done(s.restore(false))
	s.is("old", "/shared/a")
	if !slices.Equal(was, units.procs("app.service")) {
		t.Error("it was stopped for nothing")
	}
	if got := read(t, "/proc/"+was[0]+"/root"+s.path("shared/a/f")); got != "old" {
		t.Errorf("it sees %q", got)
	}
}

// Row 41, and two agents at once.
func TestSetIsTakenOnceHoweverOftenItIsAskedFor(t *testing.T) {
	s := newStock(t, "a", "b")
	sets := make(chan SnapshotSet, 4)
	for range 4 {
		go func() {
			set, err := newAgent(s.Options).snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/srv/a", "/srv/b"}})
			if err != nil {
				t.Error(err)
			}
			sets <- set
		}()
	}
	first := <-sets
	for range 3 {
		if set := <-sets; !reflect.DeepEqual(set, first) {
			t.Errorf("%+v, and %+v", first, set)
		}
	}
	if len(s.beside()) != 2 {
		t.Error(s.beside())
	}
}

// Rows 35 to 37: what was received stays what it is, and what is sent stays.
func TestReceivedAndSentSnapshotsAreLeftAsTheyAre(t *testing.T) {
	s := newStock(t, "a", "in")
	s.sh("head -c 4000000 /dev/urandom > srv/a/big")
	s.take("/srv/a")
	snap := s.set.Snapshots[0]
	s.sh("btrfs -q send %q | btrfs -q receive disk/in", snap.Path)
	all, err := s.snapshots(t.Context(), DiscoverArgs{Paths: []string{"/disk"}})
	must(t, err)
	got := all[len(all)-1]
	before, _ := btrfs.Describe(got.Path)
	got.Origin = "a"
	s.done(s.restore(false, got))
	s.is("old", "/srv/a")
	live, _ := btrfs.Describe(s.path("srv/a"))
	if after, _ := btrfs.Describe(got.Path); before.Received != snap.UUID || after.Received != before.Received || !after.ReadOnly || live.Received != "" {
		t.Errorf("%+v, then %+v; live %+v", before, after, live)
	}
	send := exec.Command("btrfs", "send", snap.Path)
	r, w, _ := os.Pipe()
	send.Stdout = w
	must(t, send.Start())
	defer func() { send.Process.Kill(); send.Wait(); r.Close() }()
	r.Read(make([]byte, 1))
	list, err := s.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: []Snapshot{snap}})
	if must(t, err); !strings.Contains(list[0].Why, "(btrfs) uses") {
		t.Errorf("%+v", list)
	}
	if d, _ := s.discover(t.Context(), DiscoverArgs{Paths: []string{"/disk"}}); len(d.Filesystems[0].Sending) != 1 {
		t.Errorf("%+v", d.Filesystems)
	}
}

func TestSetOfAnActiveSwapFileIsRefused(t *testing.T) {
	s := newStock(t, "a")
	s.sh("truncate -s 0 srv/a/swap; chattr +C srv/a/swap; fallocate -l 1M srv/a/swap; chmod 600 srv/a/swap; mkswap -q srv/a/swap; swapon srv/a/swap")
	defer s.sh("swapoff srv/a/swap")
	_, err := s.shoot("/disk/snaps", "/srv/a")
	isCode(t, err, "busy")
}

func TestPauseBySignalsMissesNoChild(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "i=0; while :; do i=$((i+1)); sh -c \"echo $i > srv/a/n\" & wait; done")
	dir := cgroups() + units.cgroup("app.service")
	for range 20 {
		s.moves(units)
		must(t, halted(t.Context(), dir, true))
		for _, pid := range units.procs("app.service") {
			if !strings.Contains(read(t, "/proc/"+pid+"/stat"), ") T ") {
				t.Errorf("%s goes on", pid)
			}
		}
		must(t, halted(t.Context(), dir, false))
	}
	s.moves(units)
}

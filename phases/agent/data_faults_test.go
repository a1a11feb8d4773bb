package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// A restore was cut short after its exchange, and somebody put the copy away:
// the second try took what lay aside, all that was left of the data, for its copy.
func TestRestoreLeavesWhatLiesAsideAndIsNoCopy(t *testing.T) {
	s := newStock(t, "a", "b")
	s.take("/srv/a", "/srv/b")
	live, err := btrfs.Describe(s.path("srv/a"))
	must(t, err)
	s.killed("exchanged", s.set.Snapshots[0])
	s.sh("mkdir disk/old_roots; mv disk/a disk/old_roots/1; btrfs -q subvolume create disk/a")
	failed(t, s.restore(false, s.set.Snapshots[0]), "left as it is")
	if !strings.Contains(s.sh("btrfs subvolume list -u disk"), live.UUID) {
		t.Error("the data as it was before the restore is deleted")
	}

	s.killed("prepared", s.set.Snapshots[1])
	aside := strings.TrimSpace(s.sh("ls -d disk/snaps/*replaced*b"))
	s.sh("btrfs -q subvolume delete %[1]s; btrfs -q subvolume create %[1]s; echo precious > %[1]s/x", aside)
	failed(t, s.restore(false, s.set.Snapshots[1]), "left as it is")
	if s.read(aside+"/x") != "precious\n" {
		t.Error("what deployer did not make was deleted")
	}
}

func failed(t *testing.T, o Outcome, word string) {
	t.Helper()
	if o.State != opFailed || !strings.Contains(o.Message, word) {
		t.Errorf("%s %q, not failed with %q", o.State, o.Message, word)
	}
}

func TestSubvolumesAndFoldersBeginAndEndWithADot(t *testing.T) {
	s := newStock(t, ".data")
	s.sh("btrfs -q subvolume create disk/snaps.; mkdir disk/snaps./x.")
	set, err := s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: "/disk/snaps./x.", Stamp: stamp, Paths: []string{"/srv/.data"}})
	must(t, err)
	s.done(s.restore(false, set.Snapshots...))
	if mountOf(s.mounts(), s.path("srv/.data")).Path != s.path("srv/.data") {
		t.Error("it is not mounted again")
	}
}

// A subvolume without a mount of its own took what was mounted in it along, and
// the loop devices of its files went on writing into what was replaced.
func TestRestoreRefusesWhatWouldGoAlongWithTheReplaced(t *testing.T) {
	s := newStock(t)
	s.sh("btrfs -q subvolume create disk/data; mkdir disk/data/cache vm; truncate -s 8M disk/data/img; mkfs.ext4 -q disk/data/img")
	s.take("/disk/data")
	t.Cleanup(func() { s.sh("umount disk/data/cache vm 2>/dev/null || true") })
	s.sh("mount -t tmpfs none disk/data/cache")
	failed(t, s.restore(false), "disk/data/cache (tmpfs) is mounted below")
	s.sh("umount disk/data/cache; mount -o loop disk/data/img vm")
	failed(t, s.restore(false), "disk/data/img")
	s.sh("umount vm")
	s.done(s.restore(false))
}

func TestRestoreRefusesAReadOnlyNestedSubvolumeBeforeItStopsAnything(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	pid := fmt.Sprint(units.procs("app.service"))
	s.take("/srv/a")
	s.sh("mkdir srv/a/btrbk; btrfs -q subvolume snapshot -r srv/a srv/a/btrbk/a.20260101T0000")
	failed(t, s.restore(false), "srv/a/btrbk/a.20260101T0000 is nested in it")
	if now := fmt.Sprint(units.procs("app.service")); now != pid {
		t.Errorf("the service was stopped: %s, %s", pid, now)
	}
}

// fakeRoot is an agent whose running system's root is a subvolume.
func (s *stock) fakeRoot(nested ...string) func() *agent {
	for _, n := range nested {
		s.sh("btrfs -q subvolume create srv/root/%[1]s; echo precious > srv/root/%[1]s/x", n)
	}
	s.sh("mkdir -p srv/root/proc/sys/kernel/random; echo b > srv/root/proc/sys/kernel/random/boot_id")
	s.t.Cleanup(func() { exec.Command("umount", "-l", s.path("srv/root")).Run() }) // with what cannot be seen
	s.take("/srv/root")
	return func() *agent {
		return newAgent(Options{Root: s.Root, Prefix: s.path("srv/root"), Units: fakeUnits{s.dir}, Stdout: os.Stderr})
	}
}

// What had moved along with a root stayed in its copy, and the root that boots
// next had empty folders.
func TestARootThatIsTakenBackHasAllThatIsNestedInIt(t *testing.T) {
	s := newStock(t, "root")
	root := s.fakeRoot("n1", "n2", "n3", "n4")()
	root.Moment = func(at string) {
		if at == "exchanged root" {
			s.sh("rmdir disk/root/n3; mkdir -p disk/root/n3/'in the way'")
		}
	}
	failed(t, root.apply(t.Context(), "r-1", Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots[:1]}}), "n3 is in its place")
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		if s.read("disk/root/"+n+"/x") != "precious\n" || s.read("srv/root/"+n+"/x") != "precious\n" {
			t.Errorf("%s is not in the root that is to be booted", n)
		}
	}
}

// Killed between the move of a nested subvolume and its mount, the second try
// said done while the running system had lost it.
func TestTheRunningRootKeepsWhatHasMovedAlong(t *testing.T) {
	s := newStock(t, "root")
	restart, op := s.rootKilled()
	r := s.restorationOf("r-1")
	must(t, unix.Rmdir(s.path("disk/root/n")))
	must(t, os.Rename(s.path("disk/"+r.Members[0].Aside)+"/n", s.path("disk/root/n"))) // as far as it had come
	s.done(restart().apply(t.Context(), "r-1", op))
	if s.read("srv/root/n/x") != "precious\n" {
		t.Error("the running system has lost it")
	}
}

// rootKilled is a restore of the running root, with n in it, that was killed after
// the exchange.
func (s *stock) rootKilled() (restart func() *agent, op Operation) {
	restart = s.fakeRoot("n")
	root, op := restart(), Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots[:1]}}
	root.Moment = func(at string) {
		if at == "exchanged root" {
			panic("killed")
		}
	}
	defer func() { _ = recover() }()
	root.apply(s.t.Context(), "r-1", op)
	return restart, op
}

// After the boot the second try mounted what is live into what was replaced, where
// whoever deletes that deletes it too, and asked for another boot.
func TestAfterTheBootNothingLiveIsInTheReplaced(t *testing.T) {
	s := newStock(t, "root")
	restart, op := s.rootKilled()
	s.sh("umount -R srv/root; mount -o subvol=root %s srv/root", s.device()) // the boot
	s.sh("mkdir -p srv/root/proc/sys/kernel/random; echo next > srv/root/proc/sys/kernel/random/boot_id")
	o := restart().apply(t.Context(), "r-1", op)
	s.done(o)
	aside := "disk/" + s.restorationOf("r-1").Members[0].Aside
	if exists(s.path(aside + "/n/x")) {
		s.sh("umount %s/n", aside)
		t.Errorf("the live subvolume is mounted in %s", aside)
	}
	if due, err := restart().rootDue("r-1"); strings.Contains(o.Message, "reboot now") || due || err != nil {
		t.Errorf("another boot is asked for: %s; due %t %v", o.Message, due, err)
	}
}

// The root was taken back by its name, all was said to be well, and the host ran on
// from the copy.
func TestARootThatIsTakenBackAfterABootWaitsForAnother(t *testing.T) {
	s := newStock(t, "root")
	restart, _ := s.rootKilled()
	again := func() []Outcome {
		s.sh("mkdir -p srv/root/proc/sys/kernel/random; echo next > srv/root/proc/sys/kernel/random/boot_id")
		s.agent = restart()
		return s.performed(otherChoice)
	}
	s.sh("umount -R srv/root; mount -o subvol=root %s srv/root; echo precious > srv/root/orders", s.device()) // the boot
	for range 2 {
		all := again()
		failed(t, all[0], "until it boots again")
		failed(t, all[1], "restored in part")
	}
	s.sh("umount -R srv/root; mount -o subvol=root %s srv/root", s.device()) // the other boot
	all := again()
	s.done(all[0])
	s.is("new", "/srv/root")
	if aside := s.restorationOf("r-1").Left; len(all) != 2 || len(aside) != 1 || s.read("disk/"+aside[0].Aside+"/orders") != "precious\n" || s.read("srv/root/n/x") != "precious\n" {
		t.Errorf("%+v, %+v", all, aside)
	}
}

// Anything mounted in what is nested in a root, be it in /tmp, kept the root from
// going back. What is mounted right on that does so still, which had come out in
// the middle only.
func TestARootGoesBackWhateverIsMountedInWhatIsNested(t *testing.T) {
	s := newStock(t, "root", "home")
	s.sh("mkdir -p srv/root/home")
	s.mount("home", "/srv/root/home")
	root := s.fakeRoot("var")()
	s.sh("mkdir srv/root/home/fuse srv/root/var/cache; mount -t tmpfs none srv/root/home/fuse; mount -t tmpfs none srv/root/var")
	op := Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots}}
	o := root.apply(t.Context(), "r-1", op)
	if failed(t, o, "srv/root/var (tmpfs) is mounted on"); !o.Intact {
		t.Error("it had begun")
	}
	s.sh("umount srv/root/var; mount -t tmpfs none srv/root/var/cache")
	o = root.apply(t.Context(), "r-1", op)
	if s.done(o); strings.Count(o.Message, "not seen until the reboot") != 1 || !strings.Contains(o.Message, "srv/root/var/cache (tmpfs)") {
		t.Error(o.Message)
	}
}

func (s *stock) restorationOf(run string) (last *restoration) {
	store, err := s.agent.store(true)
	must(s.t, err)
	for _, r := range restorations(store, run) {
		last = r
	}
	return last
}

// What was nested or mounted since the plan was left with the replaced.
func TestRestoreSeesWhatCameAfterItsPlan(t *testing.T) {
	for name, late := range map[string]func(*stock){
		"nested":  func(s *stock) { s.sh("btrfs -q subvolume create srv/a/layer; echo precious > srv/a/layer/x") },
		"mounted": func(s *stock) { s.mount("a", "/srv/a2") },
	} {
		for _, how := range []string{"in one go", "in two"} {
			t.Run(name+" "+how, func(t *testing.T) {
				s := newStock(t, "a")
				s.take("/srv/a")
				if how == "in two" {
					s.killed("prepared", s.set.Snapshots...)
					late(s)
				} else {
					s.Moment = func(at string) {
						if at == "to stop" {
							late(s)
						}
					}
				}
				s.done(s.restore(false))
				if name == "nested" && s.read("srv/a/layer/x") != "precious\n" || name == "mounted" && s.read("srv/a2/f") != s.read("srv/a/f") {
					t.Error("it shows what was replaced, or nothing")
				}
			})
		}
	}
}

// A restore of other data than one that was cut short said done over a host
// that was restored in part.
func TestAnotherChoiceAfterAHalfDoneRestoreTakesThatBack(t *testing.T) {
	for name, again := range map[string]func(*stock) []Operation{
		"other data": func(s *stock) []Operation {
			return []Operation{{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots[1:]}}}
		},
		"no data": func(*stock) []Operation { return []Operation{{Op: DoUnits, Units: []string{"app.service"}}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t, "a", "b")
			units := s.service("app.service", "cd srv/a; exec sleep 1000")
			s.take("/srv/a", "/srv/b")
			s.killed("exchanged a", s.set.Snapshots...)
			for _, o := range s.performed(again(s)...) {
				if o.State == opFailed {
					t.Error(o.Message)
				}
			}
			if s.read("disk/a/f") != "new" || s.read("srv/a/f") != "new" || len(units.procs("app.service")) == 0 {
				t.Errorf("a is %q, mounted %q, app %v", s.read("disk/a/f"), s.read("srv/a/f"), units.procs("app.service"))
			}
		})
	}
}

func (s *stock) performed(ops ...Operation) []Outcome {
	s.t.Helper()
	store, err := s.agent.store(true)
	must(s.t, err)
	r := Receipt{Unit: "deployer-restore-r-1-1.service"}
	s.perform(s.t.Context(), store, Recipe{Run: "r-1", Operations: ops}, &r)
	return r.Result
}

// The restore that could not be taken back went on, and started what it had
// stopped on data of two times.
func TestNothingIsStartedOnDataThatIsRestoredInPart(t *testing.T) {
	s := newStock(t, "a", "b")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	s.take("/srv/a", "/srv/b")
	holder := exec.Command("sleep", "1000")
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	s.Moment = func(at string) {
		switch at {
		case "cleared":
			s.mount("b", "/srv/b")
		case "exchanged":
			s.sh("mount -o subvol=a %s srv/a", s.device())
			holder.Dir = s.path("srv/a")
			must(t, holder.Start())
		}
	}
	all := s.performed(Operation{Op: DoData, Data: &Data{Snapshots: s.set.Snapshots, Stay: true}}, Operation{Op: DoStart}, Operation{Op: DoUnits, Units: []string{"app.service"}}, Operation{Op: DoReboot})
	failed(t, all[0], "could not be taken back")
	for _, o := range all[1:] { // a boot starts everything
		failed(t, o, "restored in part")
	}
	if len(units.procs("app.service")) > 0 {
		t.Error("it was started on data that is restored in part")
	}
}

// A service that had nothing open went on over other data, with what it had read
// of the old in its memory.
func TestDeclaredUnitsAreStoppedWhateverTheyHaveOpen(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "exec sleep 1000")
	s.service("off.service", "exec sleep 1000")
	must(t, units.Do(t.Context(), "stop", "off.service"))
	pid := fmt.Sprint(units.procs("app.service"))
	s.take("/srv/a")
	s.set.Snapshots[0].Units = []string{"app.service", "off.service"}
	s.done(s.restore(false))
	if now := units.procs("app.service"); len(now) == 0 || fmt.Sprint(now) == pid || len(units.procs("off.service")) > 0 {
		t.Errorf("app was %s and is %v, off is %v", pid, now, units.procs("off.service"))
	}
}

// targetUnits is a manager whose target wants off.service.
type targetUnits struct{ fakeUnits }

func (u targetUnits) Do(ctx context.Context, verb string, units ...string) error {
	if verb == "start" && slices.Contains(units, "multi-user.target") {
		units = append(units, "off.service")
	}
	return u.fakeUnits.Do(ctx, verb, units...)
}

// A target that had stopped along was started again, and with it all that it
// wants: what a person had stopped, and what had done its work.
func TestATargetThatIsStartedAgainStartsNothingElse(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	s.service("multi-user.target", "exec sleep 1000")
	s.service("off.service", "exec sleep 1000")
	must(t, units.Do(t.Context(), "stop", "off.service"))
	s.file("app.service.properties", "RequiredBy=multi-user.target\n")
	s.Units = targetUnits{units}
	s.take("/srv/a")
	for _, stops := range []func(){
		func() { must(t, s.stillSet(Stopped, "app.service", func() {})) },
		func() { s.done(s.restore(false)) },
	} {
		was := units.procs("multi-user.target")
		stops()
		if is := units.procs("multi-user.target"); len(is) != 1 || is[0] == was[0] || len(units.procs("app.service")) != 1 || len(units.procs("off.service")) > 0 {
			t.Errorf("the target was %v and is %v, the app %v, and off %v", was, is, units.procs("app.service"), units.procs("off.service"))
		}
	}
	if by := strings.Join(startHint([]string{"app.service", "multi-user.target"}), "\n"); !strings.HasSuffix(by, "systemctl start -- app.service\nsystemctl start --job-mode=ignore-dependencies -- multi-user.target") {
		t.Error(by)
	}
}

// What systemd-run had made was gone once it was stopped, and could not be
// started again.
func TestATransientUnitIsForAPersonToEnd(t *testing.T) {
	s := newStock(t, "a")
	units := s.service("holder.service", "cd srv/a; exec sleep 1000")
	s.file("holder.service.properties", "Transient=yes\n")
	s.take("/srv/a")
	failed(t, s.restore(false), "holder.service")
	if len(units.procs("holder.service")) == 0 {
		t.Error("it was stopped")
	}
}

// A bind mount that the snapshot has no folder for went away without a word.
func TestAMountThatCannotComeBackIsTold(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	s.sh("mkdir -p srv/a/fresh var/fresh; mount --bind srv/a/fresh var/fresh")
	o := s.restore(false)
	s.done(o)
	if !strings.Contains(o.Message, "/var/fresh is not mounted again") {
		t.Error(o.Message)
	}
}

// Every Btrfs has the low ids: another disk's line in fstab was taken for ours.
func TestAnIDIsOfItsFileSystem(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	info, err := btrfs.Describe(s.path("srv/a"))
	must(t, err)
	s.file("etc/fstab", fmt.Sprintf("UUID=00000000-0000-0000-0000-000000000000 /backup btrfs subvolid=%d 0 0\n", info.ID))
	s.done(s.restore(false))
	s = newStock(t, "a")
	s.take("/srv/a")
	s.file("etc/fstab", fmt.Sprintf("UUID=%s /x btrfs subvolid=%d 0 0\n", s.set.Snapshots[0].FSID, info.ID))
	failed(t, s.restore(false), "/etc/fstab")
}

// A comment on top hid the whole of a unit, as all generated ones have it, and so
// did what the command line names before the root: after the next boot, what had
// been replaced was there again.
func TestWhatMountsByIDIsFoundBelowACommentAndBesideOtherDevices(t *testing.T) {
	const ours, other = "aaaaaaaa-1111-2222-3333-444444444444", "bbbbbbbb-1111-2222-3333-444444444444"
	for _, c := range []struct {
		file, text string
		found      bool
	}{
		{"/etc/systemd/system/srv-a.mount", "# of ops\n[Mount]\nWhat=/dev/disk/by-uuid/" + ours + "\nOptions=subvolid=256\n", true},
		{"/etc/systemd/system/srv-a.mount", "# What=UUID=" + ours + "\n[Mount]\nWhat=/dev/disk/by-uuid/" + other + "\nOptions=subvolid=256\n", false},
		{"/etc/systemd/system/srv-a.mount", "[Mount]\nWhat=UUID=" + ours + "\n; Options=subvolid=256\n", false},
		{"/run/systemd/generator/srv-a.mount", "# Automatically generated by systemd-fstab-generator\n\n[Mount]\nWhat=UUID=" + ours + "\nOptions=subvolid=256\n", true},
		{"/proc/cmdline", "resume=UUID=" + other + " root=UUID=" + ours + " rootflags=subvolid=256 quiet\n", true},
		{"/proc/cmdline", "cryptdevice=UUID=" + other + ":root root=/dev/mapper/root rootflags=subvolid=256\n", true},
		{"/proc/cmdline", "root=UUID=" + other + " resume=UUID=" + ours + " rootflags=subvolid=256\n", false},
	} {
		h := newHost(t)
		h.file(c.file, c.text)
		if by := h.mountedByID(ours, 256); slices.Contains(by, c.file) != c.found {
			t.Errorf("%s: %v\n%s", c.file, by, c.text)
		}
	}
}

// A folder for what moves along lost what the umask takes.
func TestFoldersForWhatMovesAlongKeepTheirModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := newStock(t, "a")
	s.take("/srv/a")
	s.sh("mkdir -p srv/a/shared/tmp; chmod 2770 srv/a/shared; chmod 1777 srv/a/shared/tmp; btrfs -q subvolume create srv/a/shared/tmp/n")
	s.done(s.restore(false))
	if got := strings.Fields(s.sh("stat -c %%a srv/a/shared srv/a/shared/tmp")); got[0] != "2770" || got[1] != "1777" {
		t.Error(got)
	}
}

// A restore that was repeated in its run forgot what it had replaced before.
func TestWhatEveryRestoreReplacedIsListed(t *testing.T) {
	s := newStock(t, "a")
	s.take("/srv/a")
	s.done(s.restore(false))
	first := s.kept()[0]
	s.done(s.restore(false, first))
	s.done(s.restore(false))
	if !slices.ContainsFunc(s.kept(), func(k Snapshot) bool { return k.UUID == first.UUID }) {
		t.Errorf("%s is not listed", first.Path)
	}
}

// boot is what a boot does after a power cut: it mounts what has the names now.
func (s *stock) boot(names ...string) {
	for _, n := range names {
		if mountOf(s.mounts(), s.path("srv/"+n)).Path != s.path("srv/"+n) {
			s.mount(n, "/srv/"+n)
		}
	}
}

var otherChoice = Operation{Op: DoUnits, Units: []string{"ok.service"}}

// After a power cut a host booted and worked with what was restored in part. The
// next try took that back, deleted the copy with all that was written since, and
// said that nothing was changed.
func TestWhatWasWrittenSinceTheBootIsKept(t *testing.T) {
	for _, moment := range []string{"exchanged a", "mounted"} {
		for _, how := range []string{"the same choice, refused", "another choice"} {
			t.Run(moment+", "+how, func(t *testing.T) {
				s := newStock(t, "a", "b")
				s.take("/srv/a", "/srv/b")
				s.killed(moment, s.set.Snapshots...)
				s.boot("a", "b")
				s.file("srv/a/orders", "precious")
				if how == "another choice" {
					o := s.performed(otherChoice)[0]
					s.done(o)
					s.is("new", "/srv/a", "/srv/b")
					s.precious(o)
					return
				}
				holder := exec.Command("sleep", "1000")
				holder.Dir = s.path("srv/b")
				must(t, holder.Start())
				o := s.restore(false)
				must(t, holder.Process.Kill())
				_ = holder.Wait()
				if o.State != opFailed || o.Intact {
					t.Errorf("%s, intact %t: %s", o.State, o.Intact, o.Message)
				}
				if moment == "exchanged a" { // else it could not be taken back
					s.precious(o)
				}
				s.done(s.restore(false))
				s.is("old", "/srv/b")
				if moment == "exchanged a" {
					s.is("old", "/srv/a")
				} else if s.read("srv/a/orders") != "precious" {
					t.Error("what was written since the boot is not where it was")
				}
			})
		}
	}
}

// precious checks that what was written to a copy is listed, and told of if an
// outcome is given.
func (s *stock) precious(o ...Outcome) {
	s.t.Helper()
	for _, k := range s.kept() {
		if s.read(strings.TrimPrefix(k.Path, s.dir)+"/orders") == "precious" && (len(o) == 0 || strings.Contains(o[0].Message, k.Path)) {
			return
		}
	}
	s.t.Errorf("what was written since the boot is not told of: %+v, listed %+v", o, s.kept())
}

// Each step back is on the disk before the next.
func TestTakingBackKilledAnywhereLosesNothing(t *testing.T) {
	for _, moment := range []string{"met", "to stop", "stopped", "unmounted", "moved back b", "moved back a", "moved back", "started again", "dropped"} {
		for _, again := range []string{"another choice", "the same choice"} {
			t.Run(moment+", "+again, func(t *testing.T) {
				s := newStock(t, "a", "b")
				s.sh("btrfs -q subvolume create srv/a/n; echo x > srv/a/n/x")
				units := s.service("app.service", "cd srv/b; exec sleep 1000")
				s.take("/srv/a", "/srv/b")
				s.killed("mounted", s.set.Snapshots[:2]...)
				s.boot("a", "b")
				must(t, units.Do(t.Context(), "start", "app.service"))
				s.file("srv/a/orders", "precious")
				s.cut(moment, otherChoice)
				if again == "another choice" {
					for _, o := range s.performed(otherChoice) {
						if o.State == opFailed {
							t.Error(o.Message)
						}
					}
					s.is("new", "/srv/a", "/srv/b", "/disk/a", "/disk/b")
					s.precious()
				} else {
					s.done(s.restore(false, s.set.Snapshots[:2]...))
					s.is("old", "/srv/a", "/srv/b", "/disk/a", "/disk/b")
					if s.read("srv/a/orders") != "precious" {
						s.precious()
					}
				}
				if s.read("srv/a/n/x") != "x\n" || len(units.procs("app.service")) == 0 {
					t.Errorf("n is not in its place, or app.service not started: %v", units.procs("app.service"))
				}
			})
		}
	}
}

// Subvolumes without mounts of their own were taken back under a service that had
// run on them since the boot: it went on writing to what nobody knew, and the next
// try said that all was well.
func TestWhatIsTakenBackIsTakenFromNoService(t *testing.T) {
	s := newStock(t)
	s.sh("btrfs -q subvolume create disk/a; btrfs -q subvolume create disk/b")
	s.take("/disk/a", "/disk/b")
	s.killed("mounted", s.set.Snapshots...)
	units := s.service("app.service", "cd disk/a; exec 3>>orders; while :; do echo x >&3; sleep 0.01; done")
	s.await(units, func() bool { return s.read("disk/a/orders") != "" })
	s.done(s.performed(otherChoice)[0])
	s.is("new", "/disk/a", "/disk/b")
	s.await(units, func() bool { return s.read("disk/a/orders") != "" })
	if kept := s.kept(); len(kept) != 2 || !slices.ContainsFunc(kept, func(k Snapshot) bool { return exists(k.Path + "/orders") }) {
		t.Errorf("%+v", kept)
	}
}

// With mounts of their own each try ended in "cannot unmount: busy", and nothing
// said what to do.
func TestAnotherChoiceIsToBeHadAfterABoot(t *testing.T) {
	s := newStock(t, "a", "b")
	s.take("/srv/a", "/srv/b")
	s.killed("mounted", s.set.Snapshots...)
	s.boot("a", "b")
	units := s.service("app.service", "cd srv/a; exec sleep 1000")
	holder := exec.Command("sleep", "1000")
	holder.Dir = s.path("srv/b")
	must(t, holder.Start())
	o := s.performed(otherChoice)[0]
	must(t, holder.Process.Kill())
	_ = holder.Wait()
	failed(t, o, fmt.Sprintf("could not be taken back: cannot restore /a: process %d", holder.Process.Pid))
	if len(o.Hint) < 4 || !strings.Contains(o.Hint[0], "end these processes") || len(units.procs("app.service")) == 0 {
		t.Errorf("%q, app.service %v", o.Hint, units.procs("app.service"))
	}
	for _, o := range s.performed(otherChoice) {
		if o.State == opFailed {
			t.Errorf("%s %q", o.Message, o.Hint)
		}
	}
	s.is("new", "/srv/a", "/srv/b", "/disk/a", "/disk/b")
	if len(units.procs("app.service")) == 0 {
		t.Error("app.service is not started again")
	}
}

// What the new system alone had kept a half-done restore from being taken back.
func TestUnitsThatAreNoMoreKeepNothingFromBeingTakenBack(t *testing.T) {
	s := newStock(t, "a", "b")
	s.service("broken-new.service", "cd srv/a; exec sleep 1000") // the fake starts nothing that begins so
	s.take("/srv/a", "/srv/b")
	s.killed("exchanged a", s.set.Snapshots...)
	s.sh("rm broken-new.service.script") // the old system runs by now
	for _, o := range s.performed(otherChoice) {
		if o.State == opFailed {
			t.Errorf("%s %q", o.Op.Op, o.Message)
		}
	}
}

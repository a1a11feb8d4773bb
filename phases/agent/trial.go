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
	"time"

	"golang.org/x/sys/unix"
)

// TrialProfile is a profile of our own: boot loader builders list its system
// beside the system profile's, and never make it the default.
const TrialProfile = "/nix/var/nix/profiles/system-profiles/deployer"

// rebootLimit is how long a machine may take to stop what it runs.
const rebootLimit = 2 * time.Minute

// doTrial makes the next boot, and that one alone, start a system: it is listed
// by a profile of its own, by the `boot` of the system that stays the default,
// and chosen once. Without a system it takes all of that away again.
func (a *agent) doTrial(ctx context.Context, _ string, op Operation) (effect, error) {
	stays, err := a.toplevel(Operation{System: cmp.Or(op.Boot, &Boot{}).System})
	if err != nil {
		return effect{}, err
	}
	stays = a.resolve(stays)
	if op.System == "" {
		return a.endTrial(ctx, stays)
	}
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	top = a.resolve(top)
	if a.tried(top, stays) == nil {
		return effect{already: true}, nil
	}
	for _, step := range []func() error{
		func() error { return a.mayTry(stays) },
		func() error { return os.MkdirAll(a.host(filepath.Dir(TrialProfile)), 0o755) },
		func() error { return a.setProfile(ctx, a.profile(TrialProfile), 0, top) },
		func() error { return a.rewriteMenu(ctx, stays) },
		func() error { return a.choose(ctx, top) },
	} {
		if err := step(); err != nil {
			return effect{}, err
		}
	}
	return effect{}, a.tried(top, stays)
}

// mayTry refuses, before anything is written, where a trial would not end by
// itself: where the default would be another system, or the one-shot choice
// would be made at every boot.
func (a *agent) mayTry(stays string) error {
	b, m, err := a.loader()
	if err != nil {
		return err
	}
	mnt := mountOf(readMounts(a.host("/proc/self/mountinfo")), m.dir)
	switch {
	case m.dir == "":
		return errors.New("no boot loader that can be read was found: a trial boot needs systemd-boot or GRUB")
	case b.System != stays:
		return fmt.Errorf("the boot default %q starts %s, not %s", b.Default, b.System, stays)
	case m.grub && !grubWrites(mnt):
		return fmt.Errorf("GRUB cannot write to %s (%s on %s): a one-shot choice would stay for ever", m.dir, mnt.FS, mnt.Source)
	case m.grub: // its default is the system that writes the menu
		return nil
	}
	return staysListed(m, a.profile(SystemProfile), stays)
}

// staysListed: systemd-boot's builder lists the newest generations, as many as
// its limit allows, and leaves the default alone if that is not among them.
func staysListed(m menu, p Profile, stays string) error {
	for _, g := range slices.Backward(p.Generations) {
		if g.System == stays {
			return nil
		}
		if m.find(false, g.System, "") == "" {
			return fmt.Errorf("generation %d is not in the boot menu yet: written anew, it may have no room for %s", g.Number, stays)
		}
	}
	return fmt.Errorf("%s is no generation of %s: the boot menu, written anew, would not list it", stays, p.Path)
}

// grubWrites tells whether GRUB can clear its one-shot choice there.
func grubWrites(m mount) bool {
	composed, _ := regexp.MatchString(`^/dev/(mapper/|dm-|md)`, m.Source)
	return slices.Contains([]string{"ext2", "ext3", "ext4", "vfat"}, m.FS) && !composed
}

func (a *agent) rewriteMenu(ctx context.Context, stays string) error {
	_, err := a.doActivate(ctx, "", Operation{System: stays, Action: "boot"})
	return firstOf(err, a.syncBoot())
}

// syncBoot: not all builders sync what they rename into place.
func (a *agent) syncBoot() error {
	m, err := a.menu()
	if err != nil || m.dir == "" {
		return err
	}
	dir, err := os.Open(a.host(m.dir))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

// choose makes the trial entry of a system the next boot's alone; "" chooses none.
func (a *agent) choose(ctx context.Context, system string) error {
	m, err := a.menu()
	id := ""
	if system != "" {
		id = m.find(true, system, "")
	}
	if err != nil || id == "" && system != "" { // reading back tells what is missing
		return err
	}
	args := []string{"bootctl", "set-oneshot", id}
	if m.grub {
		args = []string{"grub-editenv", a.host(m.dir + "/grubenv"), "set", "next_entry=" + id}
		if id == "" {
			args = append(args[:2], "unset", "next_entry")
		}
	}
	exit, err := a.program(ctx, args...)
	if err == nil && exit.Code != 0 {
		err = &problem{exit.Code, fmt.Sprintf("%s: exit %d: %s", strings.Join(args, " "), exit.Code, lastLine(exit.Output))}
	}
	return firstOf(err, a.syncBoot())
}

// tried reads everything back; "" wants that there is no trial.
func (a *agent) tried(top, stays string) error {
	b, m, err := a.loader()
	id := m.find(true, top, "")
	switch {
	case err != nil:
		return err
	case m.dir != "" && b.System != stays:
		return fmt.Errorf("the boot default %q starts %s, not %s", b.Default, b.System, stays)
	case a.resolve(TrialProfile) != top:
		return fmt.Errorf("%s is %q, not %q", TrialProfile, a.resolve(TrialProfile), top)
	case (id == "") != (top == ""):
		return fmt.Errorf("the boot menu lists the trial entry %q, wanted is one that starts %q", id, top)
	case top != "" && b.OneShot != id:
		return fmt.Errorf("the next boot's entry is %q, not %q", b.OneShot, id)
	}
	return nil
}

// endTrial takes away the one-shot choice, if it is a trial's, the profile and
// its entries. The choice goes first: it must not lead to an entry that is gone.
func (a *agent) endTrial(ctx context.Context, stays string) (effect, error) {
	b, m, err := a.loader()
	if err != nil {
		return effect{}, err
	}
	links, _ := filepath.Glob(a.host(TrialProfile) + "-[0-9]*-link")
	listed := m.find(true, "", "") != ""
	if !listed && len(links) == 0 && !lexists(a.host(TrialProfile)) {
		return effect{already: true}, nil
	}
	if b.OneShot != "" && m.find(true, "", b.OneShot) != "" {
		if err := a.choose(ctx, ""); err != nil {
			return effect{}, err
		}
	}
	for _, link := range append([]string{a.host(TrialProfile)}, links...) {
		if err := a.removeAt(filepath.Split(link)); err != nil {
			return effect{}, err
		}
	}
	if listed {
		err = a.rewriteMenu(ctx, stays)
	}
	return effect{}, firstOf(err, a.tried("", stays))
}

// doReboot starts the machine again, unless it booted the system already, or is
// still in the boot that is the one to go back to, and no root of the run waits
// for a boot. It is never done by itself:
// that the machine booted is seen from outside, after it. A restore that it ends
// is begun again after the boot: what was done is done already then.
func (a *agent) doReboot(ctx context.Context, run string, op Operation) (effect, error) {
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	due, err := a.rootDue(run)
	if err != nil {
		return effect{}, err
	}
	if !due && (a.resolve("/run/booted-system") == a.resolve(top) || a.bootID() == op.BootID) {
		return effect{already: true}, nil
	}
	b, m, err := a.loader()
	if next := m.starts(b); err != nil || next != a.resolve(top) {
		return effect{}, fmt.Errorf("the next boot would start %q, not %s: not rebooted", next, top)
	}
	a.Sync()
	_, err = a.ask(ctx, "systemctl", "--no-ask-password", "reboot")
	if ctx.Err() != nil || err == nil && pause(ctx, rebootLimit) != nil { // this job is stopped, like all else
		return effect{}, &problem{128 + int(unix.SIGTERM), "rebooting"}
	}
	if err != nil {
		return effect{}, err
	}
	return effect{}, fmt.Errorf("the machine was told to reboot, and is not down after %s", rebootLimit)
}

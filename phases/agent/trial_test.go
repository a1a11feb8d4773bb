package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// builders write a boot menu by the rules of NixOS' own: what a profile's
// links lead to, the newest first; GRUB's default is whoever writes it.
const builders = `
[ $1 = boot ] || return 0
p=$d/nix/var/nix/profiles
if [ -e $d/boot/grub ]; then
  entry() { printf '  menuentry "%s" --class nixos {\n    linux /k init=%s/init quiet\n  }\n' "$1" "$2"; }
  { echo 'if [ -s $prefix/grubenv ]; then'; echo fi; entry 'NixOS - Default' $top
  echo "submenu \"NixOS - All configurations\" --class submenu {"; for l in $(ls -r $p/system-*-link); do entry x $(readlink $l); done; echo '}'
  [ ! -L $p/system-profiles/deployer ] || { echo "submenu \"NixOS - Profile 'deployer'\" --class submenu {"
    for l in $(ls -r $p/system-profiles/deployer-*-link); do entry y $(readlink $l); done; echo '}'; }
  printf 'menuentry "Other" {\n  chainloader x\n}\n'; } > $d/boot/grub/grub.cfg
  exit 0
fi
rm -f $d/boot/loader/entries/*
for l in $p/system-*-link $p/system-profiles/deployer-*-link; do
  [ -L $l ] || continue
  n=${l%-link}; n=${n##*-}; id=nixos-generation-$n; t=NixOS
  case $l in */deployer-*) id=nixos-deployer-generation-$n; t='NixOS [deployer]' ;; esac
  printf 'title %s\nsort-key nixos\nversion Generation %s\noptions init=%s/init quiet\n' "$t" $n $(readlink $l) > $d/boot/loader/entries/$id.conf
  [ $(readlink $l) != $top ] || printf 'default %s.conf\n' $id > $d/boot/loader/loader.conf
done
exit 0
`

// trialHost is a fake host whose boot loader's programs do what they say.
func trialHost(t *testing.T, loader string) *host {
	h := newHost(t)
	h.file("behave-aaa-old", builders)
	h.file("bin/bootctl", `#!/bin/sh
v=`+h.path("sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")+`
echo "bootctl $*" >> `+h.path("log")+`
[ "$1" = set-oneshot ] || exit 1
if [ "$2" ]; then { printf '\7\0\0\0'; printf %s "$2" | sed 's/./&\x00/g'; printf '\0\0'; } > $v; else rm -f $v; fi
`)
	h.file("bin/grub-editenv", `#!/bin/sh
echo "grub-editenv $*" >> `+h.path("log")+`
case $2 in set) printf '# GRUB Environment Block\n%s\n###' "$3" > $1 ;; unset) printf '# GRUB Environment Block\n###' > $1 ;; esac
`)
	must(t, os.MkdirAll(h.path("sys/firmware/efi/efivars"), 0o755))
	h.mounted("ext4", "/dev/sda1")
	if loader == "grub" {
		must(t, os.RemoveAll(h.path("boot/loader")))
		h.file("boot/grub/grubenv", "# GRUB Environment Block\n###")
		h.boots(oldTop)
	}
	return h
}

func (h *host) mounted(fs, source string) {
	h.file("proc/self/mountinfo", "1 0 0:1 / / rw - btrfs /dev/sda2 rw\n2 1 0:2 / /boot rw - "+fs+" "+source+" rw\n")
}

// boots writes the menu as a person would.
func (h *host) boots(top string) {
	h.t.Helper()
	_, err := h.doActivate(h.t.Context(), "", Operation{System: top, Action: "boot"})
	must(h.t, err)
}

func (h *host) trial(system string) (effect, error) {
	b, _ := h.boot()
	return h.doTrial(h.t.Context(), "", Operation{Op: DoTrial, System: system, Boot: &Boot{Loader: b.Loader, System: oldTop}})
}

func TestTrialStartsOnceAndLeavesTheDefault(t *testing.T) {
	for loader, entry := range map[string]string{"systemd-boot": "nixos-deployer-generation-1.conf", "grub": "NixOS - Profile 'deployer'>0"} {
		h := trialHost(t, loader)
		before, err := h.boot()
		must(t, err)
		e, err := h.trial(newTop)
		must(t, err)
		b, err := h.boot()
		if err != nil || e.already || b.OneShot != entry || b.System != oldTop || b.Default != before.Default || h.resolve(TrialProfile) != newTop || b.Loader != loader {
			t.Fatalf("%s: %+v %+v %v", loader, e, b, err)
		}
		if e, err := h.trial(newTop); err != nil || !e.already {
			t.Errorf("%s: again: %+v %v", loader, e, err)
		}
		e, err = h.trial("")
		must(t, err)
		left, _ := filepath.Glob(h.path(TrialProfile) + "*")
		if b, err := h.boot(); err != nil || e.already || b != before && loader == "grub" || b.OneShot != "" || b.System != oldTop || len(left) > 0 {
			t.Errorf("%s: %+v %+v, left %v, %v", loader, e, b, left, err)
		}
		if e, err := h.trial(""); err != nil || !e.already {
			t.Errorf("%s: again: %+v %v", loader, e, err)
		}
	}
}

func TestTrialEndsAfterItsBoot(t *testing.T) {
	h := trialHost(t, "systemd-boot")
	_, err := h.trial(newTop)
	must(t, err)
	must(t, os.RemoveAll(h.path("sys/firmware/efi/efivars"))) // used up
	must(t, os.MkdirAll(h.path("sys/firmware/efi/efivars"), 0o755))
	h.file("log", "")
	_, err = h.trial("")
	must(t, err)
	if log := h.read("log"); strings.Contains(log, "bootctl") || !strings.Contains(log, "aaa-old boot") {
		t.Errorf("log: %s", log)
	}
}

func TestTrialLeavesAChoiceOfSomebodyElse(t *testing.T) {
	h := trialHost(t, "grub")
	_, err := h.trial(newTop)
	must(t, err)
	h.file("boot/grub/grubenv", "next_entry=Other\n")
	_, err = h.trial("")
	must(t, err)
	if b, _ := h.boot(); b.OneShot != "Other" {
		t.Errorf("%+v", b)
	}
}

func TestTrialRefusesBeforeItWrites(t *testing.T) {
	for want, spoil := range map[string]func(h *host){
		"no boot loader":         func(h *host) { must(t, os.RemoveAll(h.path("boot"))) },
		"not " + oldTop:          func(h *host) { h.file("boot/loader/entries/nixos-generation-1.conf", entryText(newTop, 1)) },
		"is not on this host":    func(h *host) { must(t, os.RemoveAll(h.path(newTop+"/bin"))) },
		"btrfs on /dev/sda1":     func(h *host) { h.grub(); h.mounted("btrfs", "/dev/sda1") },
		"ext4 on /dev/mapper/":   func(h *host) { h.grub(); h.mounted("ext4", "/dev/mapper/vg-boot") },
		"generation 2 is not in": func(h *host) { h.link("nix/var/nix/profiles/system-2-link", newTop) },
		"is no generation of":    func(h *host) { must(t, os.Remove(h.path("nix/var/nix/profiles/system-1-link"))) },
	} {
		h := trialHost(t, "systemd-boot")
		spoil(h)
		_, err := h.trial(newTop)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if log := h.read("log"); strings.Contains(log, "nix-env") || strings.Contains(log, "bootctl") {
			t.Errorf("%s: %s", want, log)
		}
	}
}

func (h *host) grub() {
	must(h.t, os.RemoveAll(h.path("boot/loader")))
	h.file("boot/grub/grub.cfg", "")
	h.boots(oldTop)
	h.file("log", "")
}

func TestTrialIsReadBack(t *testing.T) {
	for want, spoil := range map[string]string{
		"lists the trial entry": "exit 0\n",                                         // a builder that does nothing
		"default":               "top=" + newTop + builders,                         // one that makes the other the default
		"next boot's entry":     "printf '#!/bin/sh\n' > $d/bin/bootctl" + builders, // a tool that says it did
	} {
		h := trialHost(t, "systemd-boot")
		h.file("behave-aaa-old", spoil)
		if _, err := h.trial(newTop); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		h.file("behave-aaa-old", builders)
		if _, err := h.trial(""); err != nil {
			t.Errorf("%s: cannot be taken back: %v", want, err)
		}
	}
}

func TestTrialRunsAsAJob(t *testing.T) {
	h := trialHost(t, "systemd-boot")
	out, err := h.applyNow(t.Context(), Operation{Op: DoTrial, System: newTop, Boot: &Boot{System: oldTop}})
	if err != nil || out.State != opDone || out.Unit == "" {
		t.Errorf("%+v %v", out, err)
	}
	text := h.restoreText(Recipe{Operations: []Operation{{Op: DoTrial, Boot: &Boot{Loader: "grub", System: oldTop}}, {Op: DoReboot, System: oldTop}}})
	for _, want := range []string{"unset next_entry", "rm -f -- " + TrialProfile + " ", oldTop + "/bin/switch-to-configuration boot", "systemctl reboot"} {
		if !strings.Contains(text, want) {
			t.Errorf("RESTORE.txt has no %q:\n%s", want, text)
		}
	}
}

// A restore that reboots dies with the machine. The next boot's guard goes on
// with it, whoever began it, and reboots no second time.
func TestTheNextBootGoesOnWithARestore(t *testing.T) {
	h := newHost(t)
	h.file("bin/systemctl", "#!/bin/sh\necho reboot >> "+h.path("log")+"\n")
	_, err := h.recipePut(t.Context(), Recipe{Run: "r1", Before: Facts{System: oldTop}, Operations: []Operation{
		{Op: DoReboot, System: oldTop, BootID: "boot-0"}, {Op: DoWriteFile, Path: "/etc/a"},
	}})
	must(t, err)
	h.link("run/booted-system", newTop)
	h.link("run/current-system", newTop)
	h.file("etc/a", "of the new system")
	r, err := h.restoreStart(t.Context(), RunRef{"r1"})
	must(t, err)
	for h.read("log") == "" {
		must(t, pause(t.Context(), time.Millisecond))
	}
	units, _ := filepath.Glob(h.path("*.pid"))
	for _, u := range units { // the job, and the guard that was started with it
		pid := fakeUnits{h.dir}.pid(strings.TrimSuffix(filepath.Base(u), ".pid"))
		must(t, syscall.Kill(-pid, syscall.SIGKILL))
	}
	s, _ := h.store(false)
	for s.held(runFile("r1", "guard.alive")) { // it is killed, but not gone yet
		must(t, pause(t.Context(), time.Millisecond))
	}
	h.file("proc/sys/kernel/random/boot_id", "boot-2\n")
	h.link("run/booted-system", oldTop)
	h.link("run/current-system", oldTop)
	if r := h.wait(r.Unit, time.Second); r.State != stateLost || len(r.Result) > 0 {
		t.Errorf("%+v", r)
	}
	_, err = h.runResume(t.Context())
	must(t, err)
	if c := closingOf(s, "r1"); c == nil || c.Outcome != "restored" || c.By != ByGuard || h.read("log") != "reboot\n" || h.read("etc/a") != "" {
		t.Errorf("%+v, did %q", c, h.read("log"))
	}
}

func TestRebootIsNeverDoneByItself(t *testing.T) {
	h := newHost(t)
	h.file("bin/systemctl", "#!/bin/sh\necho systemctl $* >> "+h.path("log")+"\n")
	for _, op := range []Operation{{System: oldTop}, {System: newTop, BootID: h.bootID()}} {
		if e, err := h.doReboot(t.Context(), "", op); err != nil || !e.already {
			t.Errorf("%+v: %+v %v", op, e, err)
		}
	}
	if _, err := h.doReboot(t.Context(), "", Operation{System: newTop, BootID: "earlier"}); err == nil || !strings.Contains(err.Error(), "the next boot would start \""+oldTop) || h.read("log") != "" {
		t.Errorf("%v %s", err, h.read("log"))
	}
	h.boots(newTop)
	h.file("log", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // it is ended when the machine goes down
		for told := ""; told == "" && ctx.Err() == nil; time.Sleep(time.Millisecond) {
			b, _ := os.ReadFile(h.path("log"))
			told = strings.TrimSpace(string(b))
		}
		cancel()
	}()
	if _, err := h.doReboot(ctx, "", Operation{System: newTop}); err == nil || err.Error() != "rebooting" || h.read("log") != "systemctl --no-ask-password reboot\n" {
		t.Errorf("%v %s", err, h.read("log"))
	}
}

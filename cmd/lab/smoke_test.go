package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// inLabOf runs the calling test again inside a lab of its own and reports
// whether this is that run.
func inLabOf(t *testing.T, up ...string) bool {
	t.Helper()
	if os.Getenv("DEPLOYER_LAB_SMOKE") != "1" || os.Geteuid() != 0 {
		t.Skip("the lab's own smoke test needs root and DEPLOYER_LAB_SMOKE=1")
	}
	if os.Getenv("LAB_ID") == t.Name() {
		return true
	}
	bin := filepath.Join(t.TempDir(), "lab")
	lab := func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Env = append(os.Environ(), "LAB_ID="+t.Name())
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd
	}
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _ = lab("down").Run() })
	start := time.Now()
	if err := lab(append([]string{"up"}, up...)...).Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(start).Round(time.Millisecond))
	if err := lab("exec", "--", os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$").Run(); err != nil {
		t.Fatal(err)
	}
	return false
}

// check runs one thing and wants one exit code; it says how long it took.
func check(t *testing.T, name string, want int, argv ...string) string {
	t.Helper()
	start := time.Now()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start).Milliseconds()
	if code != want {
		t.Errorf("FAIL  exit %d, not %d: %s\n%s", code, want, name, lastLines(string(out), 8))
	} else {
		fmt.Printf("ok    %6d ms  %s\n", took, name)
	}
	return string(out)
}

// node is the host a sequence of checks works on.
type node struct {
	labtest.Host
	*testing.T
	dir string
}

func newNode(t *testing.T, name string) node {
	return node{labtest.Host(name), t, labtest.Project(t, nil)}
}

// system builds a variant of the shared system and copies it to the host.
func (n node) system(json string) string {
	n.Helper()
	reset, _ := embedded.ReadFile("flake/variants/shared.json")
	if err := os.WriteFile(n.dir+"/variants/shared.json", reset, 0o644); err != nil {
		n.Fatal(err)
	}
	labtest.Change(n.T, n.dir, map[string]string{"shared": json})
	top := labtest.Build(n.T, n.dir, "shared")
	if out, err := exec.Command("nix", "copy", "--to", "ssh://"+string(n.Host), top).CombinedOutput(); err != nil {
		n.Fatalf("%v\n%s", err, out)
	}
	return top
}

func (n node) ssh(name string, want int, script string) string {
	n.Helper()
	return check(n.T, name, want, "ssh", "-o", "ConnectTimeout=3", string(n.Host), script)
}

func (n node) stc(name string, want int, top, action string) string {
	n.Helper()
	return n.ssh(name, want, top+"/bin/switch-to-configuration "+action)
}

// detached switches as a unit, so that losing the connection does not matter.
func (n node) detached(name string, want int, patience, top string) {
	n.Helper()
	check(n.T, name, want, "timeout", patience, "ssh", string(n.Host), "systemd-run --collect --no-ask-password --pipe --quiet --service-type=exec --unit=stc "+top+"/bin/switch-to-configuration test")
}

func (n node) contains(text, want string) {
	n.Helper()
	if !strings.Contains(text, want) {
		n.Errorf("%q is not in:\n%s", want, text)
	}
}

func (n node) equal(got, want any) {
	n.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		n.Errorf("got\n%v\nwanted\n%v", got, want)
	}
}

func (n node) serves(version string) {
	n.Helper()
	n.equal(n.Enter(n.T, "curl -s http://localhost:8080/"), "lab-app "+version)
}

const setProfile = "nix-env -p /nix/var/nix/profiles/system --set "

func TestLabSystemdBoot(t *testing.T) {
	if !inLabOf(t, "staging", "production") {
		return
	}
	n := newNode(t, "staging")
	good := n.system(`{"services":{"app":{"version":"1.0.1"}}}`)
	smokeNix(n, good)
	smokeSwitch(n, good)
	smokeLoader(n, good)
	smokeLockout(n, good)
	smokePower(n, good)
	smokeNetwork(newNode(t, "production"))
	smokeAccess(newNode(t, "production"))
	smokeModule(newNode(t, "production"))
}

func smokeNix(n node, good string) {
	check(n.T, "eval --json", 0, "nix", "eval", "--json", n.dir+"#nixosConfigurations.hetzner-vps.config.services.openssh")
	check(n.T, "path-info -S --json", 0, "nix", "path-info", "-S", "--json", good)
	check(n.T, "copy of what is there", 0, "nix", "copy", "--to", "ssh://staging", good)
	check(n.T, "deploy is trusted to copy", 0, "nix", "copy", "--no-check-sigs", "--to", "ssh-ng://deploy@staging", good)
	a, b := labtest.Build(n.T, n.dir, "hetzner-vps-staging"), labtest.Build(n.T, n.dir, "hetzner-vps")
	check(n.T, "the module parses", 0, "nix-instantiate", "--parse", n.dir+"/modules/deployer-host.nix")
	n.contains(a, "nixos-system-staging-")
	n.contains(b, "nixos-system-production-")
}

func smokeSwitch(n node, good string) {
	n.serves("1.0.0")
	n.ssh("profile --set", 0, setProfile+good)
	n.contains(n.stc("dry-activate", 0, good, "dry-activate"), "would stop the following units: app.service")
	n.stc("check", 0, good, "check")
	n.serves("1.0.0")
	n.stc("switch", 0, good, "switch")
	n.serves("1.0.1")
	n.ssh("list-generations", 0, `nix-env -p /nix/var/nix/profiles/system --list-generations | grep "2 .*(current)"`)
	n.ssh("diff-closures", 0, "nix store diff-closures /nix/var/nix/profiles/system-1-link /nix/var/nix/profiles/system")
	n.ssh("server-snapshots.service", 0, "systemctl is-active server-snapshots.timer && systemctl start server-snapshots && ls -d /.snapshots/persist-* /.snapshots/services-* /.snapshots/caddy-*")
	for name, c := range map[string]struct {
		want   int
		json   string
		action string
		says   string
	}{
		"a unit fails":              {4, `{"services":{"app":{"version":"2.0","startFail":true}}}`, "test", "the following units failed: app.service"},
		"a unit hangs in its start": {4, `{"services":{"app":{"startHang":true,"startTimeout":2}}}`, "test", "app.service"},
		"the activation fails":      {2, `{"lab":{"activation":{"fail":true}}}`, "test", "Failed to run activate script"},
		"a pre-switch check fails":  {1, `{"lab":{"preSwitchCheck":{"fail":true}}}`, "switch", "Pre-switch checks failed"},
		"the boot loader fails":     {1, `{"lab":{"bootloader":{"fail":true}}}`, "boot", "Failed to install bootloader"},
		"another init interface":    {100, `{"lab":{"initInterface":"systemd 4"}}`, "test", "incompatible"},
		"a forced code":             {101, `{"lab":{"fault":{"exit":101}}}`, "test", ""},
	} {
		n.contains(n.stc(name+fmt.Sprintf(": %d", c.want), c.want, n.system(c.json), c.action), c.says)
		n.stc("back again", 0, good, "test")
	}
	n.serves("1.0.1")
	n.ssh("lock taken: 11", 11, "flock /run/nixos/switch-to-configuration.lock "+good+"/bin/switch-to-configuration test")
	n.ssh("stderr closed: 101", 101, "set -o pipefail; { sleep 0.2; "+good+"/bin/switch-to-configuration test 2>&1 >/dev/null; } | true")
	inhibited := n.system(`{"system":{"switch":{"inhibitors":{"dbus":"broker"}}}}`)
	other := n.system(`{"system":{"switch":{"inhibitors":{"dbus":"dbus"}}}}`)
	n.stc("a first inhibitor does not stop a switch", 0, inhibited, "test")
	n.contains(n.stc("a changed one does: 1", 1, other, "test"), "dbus : broker -> dbus")
	n.ssh("NIXOS_NO_CHECK=1 does not care", 0, "NIXOS_NO_CHECK=1 "+other+"/bin/switch-to-configuration test")
	special := n.system(`{"specialisation":{"loud":{"configuration":{"services":{"app":{"version":"3.0-loud"}}}}}}`)
	n.stc("a specialisation", 0, special+"/specialisation/loud", "test")
	n.serves("3.0-loud")
	n.stc("back again", 0, good, "test")
	sick := n.system(`{"services":{"app":{"healthy":false}}}`)
	n.stc("an unhealthy service: 0", 0, sick, "test")
	n.equal(n.Enter(n.T, `curl -s -o /dev/null -w '%{http_code}' http://localhost:8080/healthz`), "500")
	n.stc("a service that dies later: 0", 0, n.system(`{"services":{"app":{"dieAfter":1}}}`), "test")
	n.ssh("it died", 0, "sleep 1; systemctl is-failed app")
	n.stc("data is migrated: 0", 0, n.system(`{"services":{"app":{"version":"2.0","schema":2}}}`), "test")
	n.stc("the old version refuses it: 4", 4, good, "test")
	n.ssh("data put back", 0, "echo v1 > /var/lib/services/app/data")
	n.stc("back again", 0, good, "test")
}

func smokeLoader(n node, good string) {
	next := n.system(`{"services":{"app":{"version":"1.0.2"}},"lab":{"kernel":{"version":"6.12.2","size":2048}}}`)
	before := n.Facts(n.T)
	out := check(n.T, "fill /boot", 0, os.Getenv("LAB_BIN"), "fill", "staging", "/boot")
	n.contains(out, " 0 100%")
	n.ssh("profile --set", 0, setProfile+next)
	n.contains(n.stc("boot with /boot full: 1", 1, next, "boot"), "No space left on device")
	n.equal(n.Facts(n.T).Loader, before.Loader)
	check(n.T, "unfill /boot", 0, os.Getenv("LAB_BIN"), "unfill", "staging", "/boot")
	n.stc("boot", 0, next, "boot")
	n.contains(n.Facts(n.T).Loader, "default nixos-generation-3.conf")
	n.ssh("a reboot is pending", 1, "cmp /run/booted-system/kernel "+next+"/kernel")
	n.ssh("profile back", 0, setProfile+good)
	n.stc("the good one is the default", 0, good, "boot")
	n.contains(n.Facts(n.T).Loader, "default nixos-generation-4.conf") // listed twice: the later one
	trial := n.system(`{"services":{"app":{"version":"1.0.3"}}}`)
	n.ssh("a trial profile", 0, "mkdir -p /nix/var/nix/profiles/system-profiles; nix-env -p /nix/var/nix/profiles/system-profiles/deployer --set "+trial)
	n.stc("the good one's boot lists it", 0, good, "boot")
	n.contains(n.Facts(n.T).Loader, "default nixos-generation-4.conf")
	const variable = "tr -d '\\0' < /sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	n.ssh("one-shot, and firmware shows it", 0, "bootctl set-oneshot nixos-deployer-generation-1.conf; "+variable+" | grep -a nixos-deployer-generation-1.conf")
	n.rebootInto("1.0.3")
	n.ssh("used up", 1, variable)
	n.rebootInto("1.0.1")
}

func (n node) rebootInto(version string) {
	n.Helper()
	check(n.T, "reboot into "+version, 0, os.Getenv("LAB_BIN"), "host", string(n.Host), "reboot")
	n.WaitSSH(n.T)
	n.comesUpWith(version)
}

// comesUpWith waits: sshd answers before the services of a boot do.
func (n node) comesUpWith(version string) {
	n.Helper()
	n.ssh("app is up", 0, "for i in $(seq 600); do systemctl is-active app && exit; sleep 0.1; done; exit 1")
	n.serves(version)
}

func smokeLockout(n node, good string) {
	n.stc("sshd moves to port 2222", 0, n.system(`{"services":{"openssh":{"ports":[2222]}}}`), "test")
	n.ssh("port 22 is closed", 255, "true")
	check(n.T, "back by port 2222", 0, "ssh", "-p", "2222", "staging", good+"/bin/switch-to-configuration test")
	n.detached("sshd goes", 0, "10", n.system(`{"services":{"openssh":{"enable":false}}}`))
	n.ssh("nobody can log in", 255, "true")
	n.Enter(n.T, good+"/bin/switch-to-configuration test")
	down := n.system(`{"lab":{"network":{"down":true}}}`)
	n.detached("the network goes", 124, "3", down)
	n.equal(n.Enter(n.T, "while systemctl -q is-active stc; do sleep 0.1; done; readlink /run/current-system"), down)
	n.Enter(n.T, good+"/bin/switch-to-configuration test")
	// What the host sends still gets out, so ssh sees the end of the command.
	n.detached("a firewall that drops everything", 0, "10", n.system(`{"networking":{"firewall":{"dropAll":true}}}`))
	n.ssh("nobody can connect", 255, "true")
	n.Enter(n.T, good+"/bin/switch-to-configuration test")
	n.detached("an activation hangs", 124, "3", n.system(`{"lab":{"activation":{"hang":true}}}`))
	n.ssh("and is stopped", 0, "systemctl stop stc")
	n.stc("back again", 0, good, "test")
}

func smokePower(n node, good string) {
	n.ssh("marks", 0, "touch /gone /persist/kept")
	n.rebootInto("1.0.1")
	n.ssh("the root is new, /persist is not", 0, "test ! -e /gone -a -e /persist/kept && ls /btrfs_tmp/old_roots | grep root-")
	n.ssh("booted what the boot loader says", 0, "readlink -f /run/booted-system | grep -x "+good)
	n.ssh("the journal is kept", 0, "test $(journalctl --list-boots | wc -l) -gt 1")
	n.ssh("marks", 0, "echo 1 > /persist/synced; sync -f /persist; echo 2 > /persist/late")
	for _, action := range []string{"powerloss", "start"} {
		check(n.T, action, 0, os.Getenv("LAB_BIN"), "host", "staging", action)
	}
	n.WaitSSH(n.T)
	n.ssh("what was synced is there, what was not is gone", 0, "test -e /persist/synced -a ! -e /persist/late")
	n.Power(n.T, "freeze")
	check(n.T, "frozen", 124, "timeout", "2", "ssh", "staging", "true")
	n.Power(n.T, "thaw")
	n.ssh("thawed", 0, "true")
	n.Power(n.T, "kill")
	n.ssh("killed", 255, "true")
	n.Power(n.T, "start")
	n.WaitSSH(n.T)
	n.Power(n.T, "stop")
	n.Power(n.T, "start")
	n.WaitSSH(n.T)
	n.ssh("garbage collection", 0, "nix-env -p /nix/var/nix/profiles/system --delete-generations old && nix-collect-garbage")
	start := time.Now()
	labtest.Fresh(n.T, "staging")
	fmt.Printf("ok    %6d ms  fresh\n", time.Since(start).Milliseconds())
	n.comesUpWith("1.0.0")
}

func smokeNetwork(n node) {
	n.Net(n.T, "cut")
	n.ssh("cut off", 255, "true")
	n.Net(n.T, "heal")
	n.ssh("healed", 0, "true")
	n.Net(n.T, "delay", "50ms", "--jitter", "5ms")
	n.ssh("100 ms round trip", 0, "true")
	n.Net(n.T, "cut")
	n.ssh("cut off behind the delay", 255, "true")
	n.Net(n.T, "heal")
	n.Net(n.T, "loss", "5")
	n.ssh("losing 5 % each way", 0, "true")
	n.Net(n.T, "clear")
	best := time.Hour // of three: the machine may be busy with other things
	for range 3 {
		start := time.Now()
		n.ssh("clear", 0, "true")
		best = min(best, time.Since(start))
	}
	if best > time.Second {
		n.Errorf("the network is slow after clear: %s", best)
	}
}

func smokeAccess(n node) {
	out := check(n.T, "deploy's sudo rules", 0, "ssh", "production", "sudo -l -U deploy")
	n.equal(strings.Count(out, "NOPASSWD"), 1)
	n.contains(out, "(root) NOPASSWD: /nix/var/deployer/agent")
	check(n.T, "deploy may not run anything else", 1, "ssh", "deploy@production", "sudo -n id")
	check(n.T, "the launcher runs as root", 67, "ssh", "deploy@production", "sudo -n /nix/var/deployer/agent run "+strings.Repeat("0", 64))
	n.equal(n.Enter(n.T, "stat -c '%a %U' /nix/var/deployer /nix/var/deployer/agent; stat -c %i /nix/var/deployer"), "700 root\n700 root\n256")
}

// fakeAgent is what the launcher resumes: it only stays.
const fakeAgent = `cd /nix/var/deployer; printf '#!/bin/sh\nexec sleep 1000\n' > new; d=$(sha256sum < new | cut -d' ' -f1)
mkdir -p bin runs/r1; chmod 0500 new; mv new bin/$d; echo $d > current`

func smokeModule(n node) {
	const resume = "systemctl show -P ActiveState -P UnitFileState -P ConditionResult deployer-resume"
	n.equal(n.Enter(n.T, resume), "inactive\nenabled\nno")
	n.Enter(n.T, fakeAgent)
	n.rebootInto("1.0.0")
	n.equal(n.Enter(n.T, resume), "active\nenabled\nyes")
	bare := n.system(`{"services":{"deployer-host":{"enable":false}}}`)
	n.stc("a system without the module", 0, bare, "test")
	n.equal(n.Enter(n.T, "systemctl is-active deployer-resume; test -e /etc/systemd/system/deployer-resume.service || echo gone"), "active\ngone")
	n.Enter(n.T, "echo other > /nix/var/deployer/agent")
	n.stc("back again", 0, n.system(`{"services":{"deployer-host":{"enable":true}}}`), "test")
	n.ssh("the launcher is put back", 67, "/nix/var/deployer/agent run "+strings.Repeat("0", 64))
	n.Enter(n.T, "systemctl stop deployer-resume; rm -r /nix/var/deployer/bin /nix/var/deployer/runs /nix/var/deployer/current")
}

func TestLabGrub(t *testing.T) {
	if !inLabOf(t, "--loader", "grub", "h1") {
		return
	}
	n := newNode(t, "h1")
	n.equal(n.Enter(t, "hostname"), "h1")
	good := n.system(`{"services":{"app":{"version":"1.0.1"}}}`)
	n.ssh("profile --set", 0, setProfile+good)
	n.stc("switch", 0, good, "switch")
	loader := n.Facts(t).Loader
	n.contains(loader, `submenu "NixOS - All configurations"`)
	trial := n.system(`{"services":{"app":{"version":"1.0.3"}},"lab":{"kernel":{"version":"6.12.9"}}}`)
	n.ssh("a trial profile", 0, "mkdir -p /nix/var/nix/profiles/system-profiles; nix-env -p /nix/var/nix/profiles/system-profiles/deployer --set "+trial)
	check(t, "fill /boot", 0, os.Getenv("LAB_BIN"), "fill", "h1", "/boot")
	n.contains(n.stc("boot with /boot full: 1", 1, good, "boot"), "No space left on device")
	n.equal(n.Facts(t).Loader, loader)
	check(t, "unfill /boot", 0, os.Getenv("LAB_BIN"), "unfill", "h1", "/boot")
	n.stc("the good one's boot lists it", 0, good, "boot")
	n.contains(n.Facts(t).Loader, "NixOS - Profile 'deployer'")
	n.ssh("grub-reboot", 0, `grub-reboot "NixOS - Profile 'deployer'>0" && grub-editenv /boot/grub/grubenv list | grep next_entry && test $(stat -c %s /boot/grub/grubenv) = 1024`)
	n.rebootInto("1.0.3")
	n.ssh("used up", 1, "grub-editenv /boot/grub/grubenv list | grep next_entry")
	n.rebootInto("1.0.1")
}

func TestLabPlain(t *testing.T) {
	if !inLabOf(t, "--plain", "--no-launcher", "--no-trust", "--disk", "1G", "h1") {
		return
	}
	n := newNode(t, "h1")
	n.ssh("one subvolume, root", 0, "test $(btrfs subvolume list / | grep -vc 'srv$\\|var/lib/\\(portables\\|machines\\)\\|tmp$') = 1")
	n.ssh("no launcher", 1, "test -e /nix/var/deployer")
	n.ssh("mark", 0, "touch /kept")
	n.rebootInto("1.0.0")
	n.ssh("the root is kept", 0, "test -e /kept")
	top := n.system(`{"services":{"app":{"version":"1.0.7"}}}`)
	other := labtest.Build(t, n.dir, "hetzner-vps")
	check(t, "deploy is not trusted to copy", 1, "nix", "copy", "--no-check-sigs", "--to", "ssh-ng://deploy@h1", other)
	n.stc("switch", 0, top, "switch")
	n.serves("1.0.7")
	n.ssh("snapshots need the layout", 1, "systemctl start server-snapshots")
	check(t, "fill the disk", 0, os.Getenv("LAB_BIN"), "fill", "h1", "/")
	n.ssh("a full disk", 1, "dd if=/dev/urandom of=/more bs=1M count=10 conv=fsync")
}

// TestLabVM shows what only a kernel of its own can: the rest is the same code.
func TestLabVM(t *testing.T) {
	if os.Getenv("DEPLOYER_LAB_VM") != "1" {
		t.Skip("a virtual machine boots in a minute or two: set DEPLOYER_LAB_VM=1 (and DEPLOYER_LAB_SMOKE=1)")
	}
	if !inLabOf(t, "--backend", "vm", "staging") {
		return
	}
	n := newNode(t, "staging")
	n.ssh("a kernel of its own", 0, "systemd-detect-virt --vm && test $(cat /proc/sys/kernel/ostype) = Linux && test -b /dev/vdb")
	n.ssh("marks", 0, "echo 1 > /persist/synced; sync -f /persist; echo 2 > /persist/late; touch /gone")
	n.Power(t, "powerloss")
	n.Power(t, "start")
	n.WaitSSH(t)
	n.ssh("synced is there, unsynced and the root are gone", 0, "test -e /persist/synced -a ! -e /persist/late -a ! -e /gone")
	trial := n.system(`{"services":{"app":{"version":"1.0.3"}}}`)
	n.ssh("a trial profile", 0, "mkdir -p /nix/var/nix/profiles/system-profiles; nix-env -p /nix/var/nix/profiles/system-profiles/deployer --set "+trial)
	n.ssh("is listed and due once", 0, "/run/current-system/bin/switch-to-configuration boot && bootctl set-oneshot nixos-deployer-generation-1.conf")
	n.rebootInto("1.0.3")
	n.rebootInto("1.0.0")
}

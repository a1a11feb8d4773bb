package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := writeFile(filepath.Join(dir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

func entryFile(init string) string {
	return "title NixOS\noptions init=/nix/store/" + init + "/init quiet\n"
}

func TestSystemdBootChooses(t *testing.T) {
	entries := map[string]string{
		"loader/entries/nixos-generation-9.conf":          entryFile("nine"),
		"loader/entries/nixos-generation-10.conf":         entryFile("ten"),
		"loader/entries/nixos-deployer-generation-1.conf": entryFile("trial"),
	}
	for name, c := range map[string]struct{ conf, oneShot, want string }{
		"the default":                 {"timeout 5\ndefault nixos-generation-9.conf\n", "", "nine"},
		"a pattern":                   {"default nixos-deployer-*\n", "", "trial"},
		"no default: the newest":      {"timeout 5\n", "", "ten"},
		"one-shot first":              {"default nixos-generation-9.conf\n", "nixos-deployer-generation-1.conf\n", "trial"},
		"one-shot that is not there":  {"default nixos-generation-9.conf\n", "nixos-generation-77.conf\n", "nine"},
		"a default that is not there": {"default nixos-generation-3.conf\n", "", "ten"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, entries)
			write(t, dir, map[string]string{"loader/loader.conf": c.conf})
			if c.oneShot != "" {
				write(t, dir, map[string]string{"loader/oneshot": c.oneShot})
			}
			e, err := chooseEntry(dir, "systemd-boot")
			if err != nil || e.init != "/nix/store/"+c.want+"/init" {
				t.Errorf("chose %v, %v", e, err)
			}
			if exists(filepath.Join(dir, "loader/oneshot")) {
				t.Error("the one-shot choice was not used up")
			}
		})
	}
}

const grubCfg = `set default=0
menuentry "NixOS - Default" --class nixos --unrestricted {
  linux /kernels/k init=/nix/store/now/init quiet
}
submenu "NixOS - All configurations" --class submenu {
menuentry "NixOS - Configuration 2 (2026-11-23 - 25.05)" --class nixos {
  linux /kernels/k init=/nix/store/two/init
}
menuentry "NixOS - Configuration 1 (2026-11-22 - 25.05)" --class nixos {
  linux /kernels/k init=/nix/store/one/init panther.keep_root
}
}
submenu "NixOS - Profile 'deployer'" --class submenu {
menuentry "NixOS - Configuration 1 (2026-11-23 - 25.05)" --class nixos {
  linux /kernels/k init=/nix/store/trial/init
}
}
`

func grubEnv(lines string) string {
	text := "# GRUB Environment Block\n" + lines
	return text + strings.Repeat("#", 1024-len(text))
}

func TestGrubChooses(t *testing.T) {
	for next, want := range map[string]string{
		"": "now", "0": "now", "1>1": "one", "NixOS - Profile 'deployer'>0": "trial", "nothing of the kind": "now", "1": "now", "1>7": "now",
		"NixOS - All configurations>NixOS - Configuration 2 (2026-11-23 - 25.05)": "two",
	} {
		t.Run(next, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"grub/grub.cfg": grubCfg, "grub/grubenv": grubEnv("saved=x\nnext_entry=" + next + "\n")})
			e, err := chooseEntry(dir, "grub")
			if err != nil || e.init != "/nix/store/"+want+"/init" {
				t.Errorf("chose %v, %v", e, err)
			}
			if e.keep != (want == "one") {
				t.Errorf("keep root: %v", e.keep)
			}
			if next == "" {
				return
			}
			if env, _ := os.ReadFile(filepath.Join(dir, "grub/grubenv")); string(env) != grubEnv("saved=x\n") {
				t.Errorf("grubenv is now %q", env)
			}
		})
	}
}

func TestNothingToBoot(t *testing.T) {
	for _, loader := range []string{"grub", "systemd-boot"} {
		if _, err := chooseEntry(t.TempDir(), loader); err == nil {
			t.Errorf("%s booted from an empty /boot", loader)
		}
	}
}

func TestMergePatch(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"v.json": `{"a":{"b":1,"c":2},"l":[1,2]}`})
	if err := patchFile(filepath.Join(dir, "v.json"), `{"a":{"b":null,"d":{"e":3}},"l":[9]}`); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(filepath.Join(dir, "v.json"))
	want := "{\n  \"a\": {\n    \"c\": 2,\n    \"d\": {\n      \"e\": 3\n    }\n  },\n  \"l\": [\n    9\n  ]\n}\n"
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestHosts(t *testing.T) {
	s, err := spec{}.withHosts(nil)
	if err != nil || len(s.Hosts) != 2 || s.Hosts[0].System != "hetzner-vps-staging" || s.Hosts[1].Address != "10.77.0.12" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, names := range [][]string{{"a", "a"}, {"Upper"}, {"-x"}, {"a b"}, {""}} {
		if _, err := (spec{}).withHosts(names); err == nil {
			t.Errorf("took %q for host names", names)
		}
	}
}

func TestSSHFiles(t *testing.T) {
	l := lab{home: t.TempDir(), run: filepath.Join(t.TempDir(), "run")}
	write(t, l.home, map[string]string{"key": "secret"})
	s, _ := spec{}.withHosts([]string{"h1"})
	if err := l.prepare(s); err != nil {
		t.Fatal(err)
	}
	key := strings.Fields(read(l.run, "h1/key.pub"))
	if got := read(l.run, "ssh/known_hosts"); got != "h1,10.77.0.11,[h1]:2222,[10.77.0.11]:2222 ssh-ed25519 "+key[1] {
		t.Error(got)
	}
	if got := read(l.run, "ssh/config"); strings.Contains(got, "StrictHostKeyChecking") || !strings.Contains(got, "HostName 10.77.0.11") {
		t.Error(got)
	}
	if got, _ := os.ReadFile(filepath.Join(l.run, "hosts")); !strings.HasSuffix(string(got), "\n10.77.0.11 h1\n") {
		t.Errorf("%s", got)
	}
}

func TestProjectNeedsKnownSystems(t *testing.T) {
	for _, set := range []string{"nowhere={}", "hetzner-vps", "hetzner-vps={", "common={}", "={}"} {
		if err := (lab{}).project(t.TempDir(), spec{}, []string{set}); err == nil || !strings.Contains(err.Error(), "--set") {
			t.Errorf("%s: %v", set, err)
		}
	}
}

func TestProjectIsCommitted(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	write(t, home, map[string]string{"base.json": `{"name":"debian-base","sha256":"00"}`, "key.pub": "ssh-ed25519 AAAA lab"})
	l := lab{home: home}
	for _, sets := range [][]string{nil, {`hetzner-vps={"services":{"app":{"startFail":true}}}`}, {`hetzner-vps={"services":{"app":{"version":"2"}}}`}, nil} {
		if err := l.project(dir, defaultSpec(), sets); err != nil {
			t.Fatal(err)
		}
	}
	variant, _ := os.ReadFile(filepath.Join(dir, "variants/hetzner-vps.json"))
	if !strings.Contains(string(variant), `"startFail": true`) || !strings.Contains(string(variant), `"version": "2"`) {
		t.Errorf("%s", variant)
	}
	if out, _ := exec.Command("git", "-C", dir, "status", "--short").Output(); string(out) != "" {
		t.Errorf("not clean: %s", out)
	}
	if out, _ := exec.Command("git", "-C", dir, "rev-list", "--count", "HEAD").Output(); string(out) != "3\n" {
		t.Errorf("%s commits, not 3", out)
	}
}

func TestOldRootsAreCounted(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []string{"root-000001-2", "root-000002-2", "root-000010-2", "root-000011-2"} {
		out, err := lab{}.shell(nil, "next_old_root", dir).Output()
		name := strings.TrimSpace(string(out))
		if err != nil || !strings.HasPrefix(name, want) {
			t.Errorf("%s, not %s: %v", name, want, err)
		}
		write(t, dir, map[string]string{strings.Replace(name, "-000002-", "-000009-", 1) + "/x": ""})
	}
}

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		0: nil, 15: missingError{"no loop", "modprobe loop"}, 7: childCode(exec.Command("sh", "-c", "exit 7").Run()),
		143: childCode(exec.Command("sh", "-c", "kill $$").Run()), 1: errors.New("cannot"),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, not %d", err, got, want)
		}
	}
}

func TestImagesAreNamedByWhatTheyHold(t *testing.T) {
	s := defaultSpec()
	a := lab{}.image(s, "shared")
	s.Backend, s.Hosts = "vm", []host{{Name: "x"}}
	if b := (lab{}).image(s, "shared"); a != b {
		t.Errorf("one image, two names: %s %s", a, b)
	}
	s.Trust = false
	if b := (lab{}).image(s, "shared"); a == b {
		t.Error("two images, one name")
	}
}

func TestQuote(t *testing.T) {
	out, err := exec.Command("sh", "-c", "printf '%s|' "+quote([]string{"a b", "it's", "$x", ""})).Output()
	if err != nil || string(out) != "a b|it's|$x||" {
		t.Errorf("%q %v", out, err)
	}
}

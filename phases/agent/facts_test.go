package agent

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseFacts(t *testing.T) {
	const top = "/nix/store/r162c33w31sjqjsbf0l5rzrzcaxzawsp-nixos-system-hetzner-vps-25.05.lab.dirty"
	for name, check := range map[string]func(Facts) bool{
		"nixos-root": func(f Facts) bool {
			return !f.Module && *f.StateDir == StateDir{Mode: 0o755, Owner: 1000, FS: "ext4"} && slices.Equal(f.Missing, []string{"nix-env"}) && f.Root && f.Launcher && *f.Trusted && f.OpenRun == "" && !slices.Contains(f.Unknown, "open_run")
		},
		"nixos-deploy": func(f Facts) bool {
			return f.Module && *f.StateDir == StateDir{Mode: 0o700, FS: "btrfs", Subvolume: true} && slices.Equal(f.Foreign, []string{"nixos-upgrade.timer"}) &&
				slices.Equal(f.Pending, []string{"kernel", "kernel-modules"}) && f.BootBytes == 589845 && !f.Root && f.User == "deploy" && f.Launcher && f.Sudo == "" && !*f.Trusted && slices.Contains(f.Unknown, "open_run")
		},
		"debian": func(f Facts) bool {
			return f.StateDir == nil && !f.Module && f.OS == "debian" && f.Nix == "" && f.System == "" && f.Trusted == nil == !f.Root && slices.Contains(f.Unknown, "space /no such")
		},
	} {
		data, err := os.ReadFile("testdata/facts/" + name + ".txt")
		must(t, err)
		f, err := ParseFacts(append([]byte("Welcome to this host!\nuser=motd\n"), data...))
		if err != nil || !check(f) {
			t.Errorf("%s: %+v %v", name, f, err)
		}
		if len(f.Space) != 2 || f.Space[0].Total == 0 || f.BootID == "" || f.Kernel == "" || f.Arch != "x86_64" || f.Time.IsZero() || !slices.Contains(f.Unknown, "switch_locked") {
			t.Errorf("%s: %+v", name, f)
		}
		if f.OS == "nixos" && (f.System != top || f.Booted != top || f.Profile.System != top || f.Profile.Generation != 1 || f.Boot.System != top ||
			f.Boot.Default != "nixos-generation-1.conf" || f.Nix != "2.26.3" || f.Systemd != "257" || len(f.Failed) != 0) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestParseFactsRefusesWhatIsCut(t *testing.T) {
	data, err := os.ReadFile("testdata/facts/nixos-root.txt")
	must(t, err)
	for _, text := range []string{"", "deployer-facts=1\n", string(data[:len(data)/2]), strings.Replace(string(data), "deployer-facts", "x", 1)} {
		if f, err := ParseFacts([]byte(text)); err == nil {
			t.Errorf("%q gave %+v", text, f)
		}
	}
}

func TestParseFactsKeepsOddValuesInTheirPlace(t *testing.T) {
	f, err := ParseFacts([]byte("deployer-facts=1\nhostname=a=b\x1b[31mc\nunit=x.service loaded failed failed end=1\nspace_path=/a b\nspace=btrfs 10 5\n" +
		"nix.trusted-users = root @wheel\nnix.trusted-public-keys = a:b= c:d==\ngroups=users wheel\nuser=u\nnix=nix (Nix) 2.8.0\nprofile=system-2-link\n" +
		"generation=system-10-link\ngeneration=system-2-link\ntarget=/nix/store/x\ntarget=/nix/store/y\nspecialisation=dark /nix/store/z\ncurrent-system=/nix/store/z\n" +
		"sudo=sudo: a password is required\nsudo_refused=1\nend=1\nuser=evil\n"))
	must(t, err)
	if f.Hostname != "a=bc" || !slices.Equal(f.Failed, []string{"x.service"}) || f.Space[0] != (Space{"/a b", "btrfs", 10, 5}) || f.User != "u" {
		t.Errorf("%+v", f)
	}
	if !*f.Trusted || !slices.Equal(f.TrustedKeys, []string{"a:b=", "c:d=="}) || f.Profile.System != "/nix/store/y" || f.Profile.Generations[1].Number != 10 ||
		f.Specialisation != "dark" || f.Sudo != "sudo: a password is required" {
		t.Errorf("%+v", f)
	}
}

func TestFactsScriptAndAgentAgreeOnTheBootLoader(t *testing.T) {
	h := newHost(t)
	h.file("boot/loader/entries/empty.conf", "")
	h.file("boot/loader/entries/tail.conf", "title no newline at the end")
	c := exec.Command("sh", "-c", "cd "+h.path("boot/loader")+" && grep -aH '' loader.conf entries/*.conf")
	out, err := c.Output()
	must(t, err)
	is := scriptBoot("systemd-boot", lines(string(out)))
	want, err := h.boot()
	if err != nil || is != want || is.System != oldTop {
		t.Errorf("%+v, want %+v %v", is, want, err)
	}
}

func TestFactsScriptRunsInEveryShell(t *testing.T) {
	for _, shell := range []string{"dash", "bash", "busybox"} {
		args := []string{"-s", "--", "/", "/odd\npath", "-n", "'"}
		if shell == "busybox" {
			args = append([]string{"sh"}, args...)
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		c := exec.Command(shell, args...)
		c.Stdin = strings.NewReader(FactsScript)
		out, err := c.CombinedOutput()
		if f, perr := ParseFacts(out); err != nil || perr != nil || f.BootID == "" {
			t.Errorf("%s: %v %v\n%s", shell, err, perr, out)
		}
	}
}

func TestFactsScriptOnlyReads(t *testing.T) {
	for _, word := range []string{"rm ", "mkdir", "touch", "sudo -n sh", "mktemp", "tee ", "> $", ">>"} {
		if strings.Contains(FactsScript, word) {
			t.Errorf("the script has %q in it", word)
		}
	}
}

func TestFactsOfAHost(t *testing.T) {
	h := newHost(t)
	h.file("run/nixos/switch-to-configuration.lock", "")
	f, err := h.facts(t.Context(), FactsArgs{Paths: []string{"/", "/none"}, Files: []string{"/etc/os-release", "/none"}})
	must(t, err)
	if f.System != oldTop || f.Profile.Generation != 1 || f.OS != "nixos" || f.BootID != "boot-1" || !slices.Equal(f.Failed, []string{"bad.service"}) ||
		!slices.Equal(f.Active, []string{"ok.service"}) || f.SwitchLocked || f.Files["/none"] != "" || len(f.Files["/etc/os-release"]) != 64 ||
		len(f.Space) != 1 || !slices.Contains(f.Unknown, "space /none") {
		t.Errorf("%+v", f)
	}
	c := exec.Command("flock", h.path(switchLock), "sleep", "5")
	if c.Start() != nil {
		t.Skip("no flock(1)")
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	for range 300 {
		if h.switchLocked() {
			return
		}
		_ = pause(t.Context(), jobPoll/2)
	}
	t.Error("the held lock was not seen")
}

func TestBootDefault(t *testing.T) {
	conf := func(text string) bootFile { return bootFile{"loader.conf", lines(text)} }
	entry := func(name, version, top string) bootFile {
		return bootFile{"entries/" + name, []string{"title x", "sort-key nixos", "version " + version, "options a init=" + top + "/init b"}}
	}
	two := []bootFile{entry("nixos-generation-9.conf", "Generation 9", oldTop), entry("nixos-generation-10.conf", "Generation 10", newTop)}
	for name, c := range map[string]struct {
		files    []bootFile
		override string
		system   string
	}{
		"named":                  {append(two, conf("default nixos-generation-9.conf")), "", oldTop},
		"named without .conf":    {append(two, conf("default nixos-generation-9")), "", oldTop},
		"glob takes the newest":  {append(two, conf("default nixos-*")), "", newTop},
		"none takes the newest":  {append(two, conf("timeout 3")), "", newTop},
		"unknown: the newest":    {append(two, conf("default other")), "", newTop},
		"firmware variable wins": {append(two, conf("default nixos-generation-10.conf")), "nixos-generation-9.conf", oldTop},
		"@saved: not known":      {append(two, conf("default @saved")), "", ""},
		"counted":                {[]bootFile{conf("default nixos-abc*.conf"), entry("nixos-abc+2-1.conf", "Generation 3", oldTop)}, "", oldTop},
		"no tries left":          {[]bootFile{conf("default nixos-*"), entry("nixos-a+0-3.conf", "Generation 11", newTop), entry("nixos-b.conf", "Generation 3", oldTop)}, "", oldTop},
		"no entries":             {[]bootFile{conf("default x")}, "", ""},
	} {
		if b := systemdBoot(slices.Clone(c.files), c.override); b.System != c.system || b.Loader != "systemd-boot" || len(b.Digest) != 64 {
			t.Errorf("%s: %+v", name, b)
		}
	}
	g := grub(bootFile{"grub.cfg", lines("set default=0\nmenuentry \"NixOS - Default\" --class nixos {\n  linux /k init=" + oldTop + "/init quiet\n}\nmenuentry 'old' {\n linux init=/x/init\n}\n")})
	if g.System != oldTop || g.Default != "NixOS - Default" {
		t.Errorf("%+v", g)
	}
}

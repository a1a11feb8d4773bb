package shell

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/host"
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		cmd  host.Command
		sudo bool
		want string
	}{
		{host.Command{Args: []string{"ls", "a b"}}, false,
			`export DEPLOYER_COMMAND=id; exec ls 'a b'`},
		{host.Command{Args: []string{"/nix/var/deployer/agent", "run", "D", "serve"}, Privileged: true}, true,
			`cd / || exit 126; export DEPLOYER_COMMAND=id; exec sudo -n -- /nix/var/deployer/agent run D serve`},
		{host.Command{Args: []string{"-odd"}, Dir: "-", Env: []string{"A=b c"}}, false,
			`cd ./- || exit 126; export DEPLOYER_COMMAND=id A='b c'; exec -- -odd`},
		{host.Command{Args: []string{"-odd"}}, false, `export DEPLOYER_COMMAND=id; exec -- -odd`},
		{host.Command{Args: []string{"id"}, Dir: "/root"}, true,
			`export DEPLOYER_COMMAND=id; exec sudo -n -- /bin/sh -c 'cd /root || exit 126; export DEPLOYER_COMMAND=id; exec id'`},
	} {
		got, err := Line(c.cmd, "id", c.sudo)
		if err != nil || got != wrap(c.want) {
			t.Errorf("got  %s (%v)\nwant %s", got, err, wrap(c.want))
		}
	}
}

// Whatever the bytes, every shell that reads the line passes them on unchanged.
func FuzzQuoteIsExact(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "a\nb", "$x", "\xff", "-n", "{a,b}", "~"} {
		f.Add(s)
	}
	var shells []string
	for _, name := range []string{"sh", "bash", "fish", "zsh"} {
		if path, err := exec.LookPath(name); err == nil {
			shells = append(shells, path)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			t.Skip()
		}
		for _, shell := range shells {
			out, err := exec.Command(shell, "-c", wrap("printf %s. "+Quote(s))).Output()
			if err != nil || string(out) != s+"." {
				t.Errorf("%s: %q became %q, %v", shell, s, out, err)
			}
		}
	})
}

func TestSudoRefusals(t *testing.T) {
	m := New("web1", "", nil)
	for _, said := range []string{
		"sudo: a password is required", "sudo: a terminal is required to read the password; either use -S",
		"sudo: interactive authentication is required", "Sorry, user dana is not allowed to execute '/usr/bin/id' as root on web1.",
		"dana is not in the sudoers file.", "/bin/sh: 1: exec: sudo: not found", "/bin/sh: line 1: exec: sudo: not found",
	} {
		if m.sudo(host.Command{Privileged: true}, 1, []byte("noise\n"+said+"\n")) == nil {
			t.Errorf("%q is not seen as a refusal", said)
		}
	}
	if err := m.sudo(host.Command{Privileged: true}, 1, []byte("rm: cannot remove sudo: a password is required")); err != nil {
		t.Errorf("a failure of the command is taken for a refusal: %v", err)
	}
}

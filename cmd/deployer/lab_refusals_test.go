package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// refusal is a reason not to start. Each is found before anything is changed,
// and the command that mends it is printed.
type refusal struct {
	name   string
	spoil  func(s *site)
	unlike string   // what a person is told
	hint   []string // what the printed commands have
	mend   func(s *site, r result)
}

var refusals = []refusal{
	{
		name: "out of reach", unlike: "no answer", hint: []string{"ssh "},
		spoil: func(s *site) { s.production.Net(s.T, "cut") },
		mend:  func(s *site, _ result) { s.production.Net(s.T, "heal") },
	},
	{
		name: "another host key", unlike: "its host key is not the one in known_hosts", hint: []string{"ssh-keygen -R", "ssh-keyscan"},
		spoil: func(s *site) {
			s.production.Enter(s.T, `cd /etc/ssh; mkdir /run/keys; mv ssh_host_* /run/keys/
				ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; systemctl restart sshd
				for i in $(seq 100); do ssh-keyscan localhost 2>/dev/null | grep -q . && break; sleep 0.1; done`)
		},
		mend: func(s *site, r result) { // as printed, then everything back
			known := filepath.Join(os.Getenv("HOME"), ".ssh/known_hosts")
			text, err := os.ReadFile(known)
			if err != nil {
				s.Fatal(err)
			}
			s.shell(0, s.hint(r, "ssh-keygen -R"))
			s.shell(0, s.hint(r, "ssh-keyscan"))
			s.want(0, "plan", "lab")
			err = errors.Join(os.WriteFile(known+".was", text, 0o600), os.Rename(known+".was", known)) // other tests read it
			if err != nil {
				s.Fatal(err)
			}
			s.production.Enter(s.T, "mv -f /run/keys/* /etc/ssh/; systemctl restart sshd")
			s.production.WaitSSH(s.T)
		},
	},
	{
		name: "no sudo rule", unlike: "the deploy user cannot run the agent", hint: []string{"security.sudo.extraRules", "/nix/var/deployer/agent"},
		spoil: func(s *site) { s.production.Enter(s.T, "sed -i.was '/^deploy/d' /etc/sudoers") },
		mend:  func(s *site, _ result) { s.production.Enter(s.T, "mv /etc/sudoers.was /etc/sudoers") },
	},
	{
		name: "no launcher", unlike: "there is no launcher at /nix/var/deployer/agent", hint: []string{"deployer debug launcher"},
		spoil: func(s *site) { s.production.Enter(s.T, "btrfs -q subvolume delete /nix/var/deployer") },
		mend:  func(s *site, r result) { s.shell(0, s.hint(r, "deployer debug launcher")) },
	},
	{
		name: "a snapshot of /boot", unlike: "a snapshot of /boot is wanted, but it is on ", hint: []string{"deployer.yaml"},
		spoil: func(s *site) { s.edit("/persist: keep", "/boot: keep") },
		mend:  func(s *site, _ result) { s.edit("/boot: keep", "/persist: keep") },
	},
	{
		name: "a snapshot of a tmpfs", unlike: "a snapshot of /run is wanted, but it is on tmpfs, not Btrfs", hint: []string{"deployer.yaml"},
		spoil: func(s *site) { s.edit("/persist: keep", "/run: keep") },
		mend:  func(s *site, _ result) { s.edit("/run: keep", "/persist: keep") },
	},
	{
		name: "no Nix", unlike: "there is no Nix on the host", hint: []string{"nix --version"},
		spoil: func(s *site) {
			s.production.Enter(s.T, `for n in /run/current-system/sw/bin/nix /usr/bin/nix; do mount --bind /dev/null "$(readlink -f $n)"; done; ! command -v nix`)
		},
		mend: func(s *site, _ result) { // lazily: a sandbox that a service gets at this moment makes its copy of a mount busy
			s.production.Enter(s.T, `for n in /usr/bin/nix /run/current-system/sw/bin/nix; do umount -l "$(readlink -f $n)"; done; nix --version`)
		},
	},
	{
		name: "a full disk", unlike: "MiB must stay free", hint: []string{"nix-collect-garbage"},
		spoil: func(s *site) { s.lab("fill", string(s.production), "/nix") },
		mend:  func(s *site, _ result) { s.lab("unfill", string(s.production), "/nix") },
	},
	{
		name: "a full /boot", unlike: "/boot has ", hint: []string{"--delete-generations"},
		spoil: func(s *site) { s.lab("fill", string(s.production), "/boot") },
		mend:  func(s *site, _ result) { s.lab("unfill", string(s.production), "/boot") },
	},
	{
		name: "a deploy user that Nix does not trust", unlike: "the Nix daemon does not trust deploy", hint: []string{"nix.settings.trusted-users"},
		spoil: func(s *site) {
			s.production.Enter(s.T, `cp --remove-destination "$(readlink -f /etc/nix/nix.conf)" /etc/nix/nix.conf
				sed -i '/^trusted-users/s/ deploy//' /etc/nix/nix.conf; systemctl restart nix-daemon`)
		},
		mend: func(s *site, _ result) {
			s.production.Enter(s.T, "ln -sfn /etc/static/nix/nix.conf /etc/nix/nix.conf; systemctl restart nix-daemon")
		},
	},
}

func (s *site) lab(args ...string) {
	s.Helper()
	if out, err := exec.Command(os.Getenv("LAB_BIN"), args...).CombinedOutput(); err != nil {
		s.Fatalf("lab %v: %v\n%s", args, err, out)
	}
}

// What stands in the way is found before anything is changed, and often before
// anything is built: exit 15, and the command that mends it. Once mended, the
// same command works.
func TestLabRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			s := &site{T: t, pair: s.pair, dir: s.dir, state: s.state}
			same := s.looks()
			c.spoil(s)
			r := s.want(15, "run", "lab", "--yes")
			s.says(r, c.unlike, "nothing was changed on any host")
			for _, h := range c.hint {
				s.hint(r, h)
			}
			c.mend(s, r)
			s.want(0, "plan", "lab")
			same()
			s.equal("runs", len(s.runs()), 0)
			if left := s.production.Enter(t, "ls -A /nix/var/deployer"); left != "agent" {
				t.Errorf("/nix/var/deployer has %s", left)
			}
		})
	}
}

// Nothing is built for hosts that would refuse it, and all reasons come at once.
func TestLabRefusedBeforeTheBuild(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range refusals {
		switch c.name {
		case "a deploy user that Nix does not trust", "no launcher", "a snapshot of a tmpfs":
			c.spoil(s)
		}
	}
	s.systems("{}", `{"services":{"app":{"version":"7.7.`+filepath.Base(s.state)+`"}}}`)
	s.edit("/persist: keep", "/run: keep")
	r := s.want(15, "run", "lab", "--yes")
	s.says(r, "does not trust deploy", "there is no launcher", "tmpfs")
	hints := r.hints()
	slices.Sort(hints)
	s.equal("hints", hints, slices.Compact(slices.Clone(hints))) // each once
	out := strings.Trim(s.shell(0, "nix eval --raw .#nixosConfigurations.hetzner-vps.config.system.build.toplevel.outPath"), "\n")
	s.shell(1, "nix path-info "+out+" 2>/dev/null")
}

package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/state"
)

// agree wants running system, profile and boot default of a host to be the same.
func (s *site) agree(h labtest.Host, system string) {
	s.Helper()
	f := h.Facts(s.T)
	s.equal(string(h)+" runs", f.System, system)
	s.equal(string(h)+"'s profile", h.Enter(s.T, "readlink -f /nix/var/nix/profiles/system"), system)
	s.equal(string(h)+"'s boot default", h.Enter(s.T, bootDefault), system)
}

// host is the lab's host behind a name of deployer.yaml.
func (s *site) host(name string) labtest.Host {
	return map[string]labtest.Host{"staging": s.staging, "production": s.production}[name]
}

// bootDefault reads what would boot, in a way of its own: not deployer's.
const bootDefault = `if [ -e /boot/grub/grub.cfg ]; then
	  sed -n 's/.*init=\([^ ]*\)\/init.*/\1/p' /boot/grub/grub.cfg | head -1
	else
	  e=$(sed -n 's/^default //p' /boot/loader/loader.conf)
	  sed -n 's/.*init=\([^ ]*\)\/init.*/\1/p' "/boot/loader/entries/$e"
	fi`

// A good run puts one revision on both hosts, keeps snapshots, and says all in
// its journal. A second run finds nothing to do. The shipped runbook is run.
func TestLabGood(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	args := []string{"run", "production", "--yes", "--var", "burn_in=1s", "--var", "rollback_within=1s", "--var", "look_every=1s"}
	res := s.want(0, args...)
	r := s.latest()
	r.result = res
	r.tells("")
	r.lanes(state.Committed, state.Committed)
	r.notified()
	r.snapshots("staging", s.staging)
	r.snapshots("production", s.production)

	revision := strings.TrimSpace(s.shell(0, "git rev-parse HEAD"))
	s.equal("the plan's revision", r.plan.Revision, revision)
	for _, h := range r.plan.Hosts {
		on := s.host(h.Name)
		s.agree(on, h.To)
		s.equal("what the journal says "+h.Name+" runs", r.end().Systems[h.Name], h.To)
		if label := on.Enter(t, "cat /run/current-system/nixos-version"); !strings.HasSuffix(label, revision[:7]) {
			t.Errorf("%s runs %s, which is not of revision %s", h.Name, label, revision)
		}
		s.serves(on, "1.1.0")
	}
	if _, err := os.Stat(filepath.Join(r.dir, "report.md")); err != nil {
		t.Error(err)
	}

	again := s.want(0, args...)
	s.says(again, "All hosts run and boot this revision already")
	s.equal("runs", len(s.runs()), 1)
}

// Root needs neither launcher nor trust: it brings what it needs along.
func TestLabRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, h := range []labtest.Host{s.staging, s.production} {
		h.Enter(t, "btrfs -q subvolume delete /nix/var/deployer")
	}
	s.edit("user: deploy, system: hetzner-vps-staging", "user: root, system: hetzner-vps-staging", "user: deploy, system: hetzner-vps}", "user: root, system: hetzner-vps}")
	r := s.run(0)
	r.tells("")
	r.lanes(state.Committed, state.Committed)
	for _, h := range r.plan.Hosts {
		s.agree(s.host(h.Name), h.To)
		s.equal("/nix/var/deployer on "+h.Name, s.host(h.Name).Enter(t, "stat -c '%a %U %i' /nix/var/deployer; stat -c '%a %U' /nix/var/deployer/agent"), "700 root 256\n700 root")
	}
	s.want(0, "rollback", "--yes")
	s.serves(s.production, "1.0.0")
}

// Hosts that share a system get the same store path.
func TestLabShared(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("system: hetzner-vps-staging", "system: shared", "system: hetzner-vps}", "system: shared}")
	r := s.run(0)
	r.tells("")
	systems := []string{s.staging.Facts(t).System, s.production.Facts(t).System}
	s.equal("production's path", systems[1], systems[0])
	s.agree(s.staging, systems[0])
	s.agree(s.production, systems[0])
	s.equal("the names are the hosts' own", s.staging.Enter(t, "hostname"), string(s.staging))
}

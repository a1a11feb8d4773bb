package main_test

import "testing"

func TestLabDoctor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	same := s.looks()
	s.says(s.want(0, "doctor"), "not on the host yet", "the guard outlives a reboot", "0 failed, 0 to look at")
	same()
	s.systems("{}", `{"services":{"deployer-host":{"enable":false}},"lab":{"kernel":{"version":"6.12.9"}}}`)
	s.says(s.want(0, "plan", "lab"), "no guard after a reboot: the new system")
	s.run(0)
	s.says(s.want(0, "doctor", "production"), "agent       on the host", "warn  module", "warn  reboot", "kernel", "0 failed, 2 to look at")
	s.production.Enter(t, "btrfs quota enable /")
	s.says(s.want(0, "doctor", "production"), "warn  btrfs", "has quotas on", "0 failed, 3 to look at")
	s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
	s.says(s.want(0, "plan", "lab"), "has quotas on")
	s.production.Enter(t, "btrfs quota disable /")
	s.production.Enter(t, "chmod 0755 /nix/var/deployer; mkdir -p /nix/var/deployer/runs/zz; echo '{}' > /nix/var/deployer/runs/zz/recipe.json")
	r := s.want(15, "doctor")
	s.says(r, "mode 0755", "chmod 0700 /nix/var/deployer")
	s.production.Enter(t, "chmod 0700 /nix/var/deployer")
	s.says(s.want(15, "doctor"), "run zz was never finished", "deployer abort zz")
}

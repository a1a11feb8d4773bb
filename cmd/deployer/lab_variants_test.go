package main_test

import (
	"strings"
	"testing"

	"github.com/hbohlen/deployer/state"
)

// meddle is what every failing system of production does to the declared files
// when it is activated: it replaces one by a link into the store, writes one
// that was not there, changes one, and changes one that is managed (os-release
// has the revision in it).
const meddle = `{
	"environment": {"etc": {"hand.conf": {"text": "managed now\n"}}},
	"lab": {"activation": {"script": "echo new > /etc/none.conf; echo changed > /persist/app.conf; chmod 600 /persist/app.conf"}}
}`

const writeDeclared = `echo by hand > /etc/hand.conf; chmod 640 /etc/hand.conf; rm -f /etc/none.conf
	echo precious > /persist/app.conf; chmod 444 /persist/app.conf; chown deploy: /persist/app.conf`

// variant is a system that must not stay.
type variant struct {
	name       string
	production string // options of production's new system
	checks     string // of validate; default: app
	monitor    string
	fails      string   // the step that fails
	says       []string // what a person is told
	journal    string   // what production's kept journal has; "" where it was not changed
	untouched  bool     // production was not changed when it failed
}

var variants = []variant{
	{
		name: "a unit fails at once", production: `{"services":{"app":{"version":"2.0","startFail":true}}}`,
		fails: "switch/test@production", says: []string{"app.service"}, journal: "cannot open database",
	},
	{
		name: "a unit dies after three seconds", production: `{"services":{"app":{"version":"2.0","dieAfter":3}}}`,
		monitor: "{for: 8s, every: 500ms, rollback_within: 8s, rules: [{unit: app.service, do: rollback}]}",
		fails:   "monitor/watch@production", says: []string{"app.service"}, journal: "out of memory",
	},
	{
		name: "the service answers 500", production: `{"services":{"app":{"version":"2.0","healthy":false}}}`, checks: "app, healthy",
		fails: "validate/healthy@production", says: []string{"500"}, journal: "switching to system configuration",
	},
	{
		name: "a start hangs", production: `{"services":{"app":{"version":"2.0","startHang":true,"startTimeout":2}}}`,
		fails: "switch/test@production", says: []string{"app.service"}, journal: "start operation timed out",
	},
	{
		name: "the activation fails", production: `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"fail":true}}}`,
		fails: "switch/test@production", says: []string{"activation script failed", "cannot migrate the users database"}, journal: "cannot migrate the users database",
	},
	{
		name: "a pre-switch check fails", production: `{"services":{"app":{"version":"2.0"}},"lab":{"preSwitchCheck":{"fail":true}}}`,
		fails: "switch/dry-activate@production", says: []string{"Pre-switch checks failed"}, untouched: true,
	},
	{
		name: "the boot loader fails", production: `{"services":{"app":{"version":"2.0"}},"lab":{"bootloader":{"fail":true}}}`,
		fails: "validate/boot@production", says: []string{"boot loader could not be written", "lab.bootloader.fail"}, journal: "switching to system configuration",
	},
	{
		name: "sshd is gone", production: `{"services":{"app":{"version":"2.0"},"openssh":{"enable":false}}}`,
		fails: "validate/contact@production", says: []string{"nobody listens there"}, journal: "switching to system configuration",
	},
	{
		name: "sshd moves to another port", production: `{"services":{"app":{"version":"2.0"},"openssh":{"ports":[2222]}}}`,
		fails: "validate/contact@production", says: []string{"nobody listens there"}, journal: "switching to system configuration",
	},
	{
		// It is full only when everything that can be known beforehand was looked at.
		name: "/boot fills up before the commit", production: `{"services":{"app":{"version":"2.0"}},"lab":{"kernel":{"version":"6.12.7","size":4096}}}`,
		checks: fillBoot,
		fails:  "validate/boot@production", says: []string{"No space left on device"}, journal: "switching to system configuration",
	},
}

// fillBoot is a check that fills /boot of production to the last byte.
const fillBoot = `{command: "test ${host} != production || { for s in 1M 64k 4k 512; do dd if=/dev/urandom of=/boot/.lab-fill bs=$s oflag=append conv=notrunc 2>/dev/null; done; sync -f /boot; true; }", within: 30s}`

// With each system that must not stay, both hosts are afterwards exactly what
// they were: the run changes staging first, which is fine, and fails on
// production.
func TestLabVariants(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			v.goesBack(newSite(t))
		})
	}
}

// goesBack runs it and wants all to be as it was.
func (v variant) goesBack(s *site) *labRun {
	s.Helper()
	s.production.Enter(s.T, writeDeclared)
	s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, deep(s.T, meddle, v.production))
	checks := v.checks
	if checks == "" {
		checks = "app"
	}
	s.book(runbook(checks, v.monitor))
	same := s.looks()
	r := s.run(20)
	same()
	s.says(r.result, v.says...)
	s.serves(s.staging, "1.0.0")
	s.serves(s.production, "1.0.0")
	r.tells(v.fails)
	r.notified()
	r.snapshots("staging", s.staging)
	r.kept("staging-journal.log", "switching to system configuration")
	if v.untouched {
		r.lanes(state.Restored, state.Untouched)
		r.restored("staging")
		return r
	}
	r.lanes(state.Restored, state.Restored)
	r.restored("staging", "production")
	r.snapshots("production", s.production)
	r.kept("production-journal.log", v.journal)
	return r
}

// What fails on staging never reaches production.
func TestLabStagingFails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems(`{"services":{"app":{"version":"2.0","startFail":true}}}`, `{"services":{"app":{"version":"2.0"}}}`)
	same := s.looks()
	r := s.run(20)
	same()
	r.tells("staging/test@staging")
	r.lanes(state.Restored, state.Untouched)
	r.notified()
	r.kept("staging-journal.log", "cannot open database")
	s.says(s.want(5, "rollback", r.id, "--yes"), "nothing to undo") // it has gone back already
	const traces = "find /nix/var/deployer /nix/var/nix/gcroots /.snapshots -newer /etc/NIXOS -name '*deployer*' ! -path /nix/var/deployer; ls /nix/var/deployer/runs /nix/var/deployer/jobs 2>/dev/null; journalctl -q --grep 'switching to system' | cat"
	if left := strings.TrimSpace(s.production.Enter(t, traces)); left != "" {
		t.Errorf("production was touched: %s", left)
	}
}

package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// A boot within the window on a machine of its own, where the clock since the
// boot really starts again and the guard's deadline would be far away: nobody
// comes back, the module resumes the guard, and the host goes back.
func TestLabVMBootsInTheWindow(t *testing.T) {
	s := newSiteIn(t, labKind{Backend: "vm", Loader: "systemd-boot", Launcher: true, Trust: true}, "--backend vm production")
	s.production.Enter(t, writeDeclared)
	s.systems("{}", deep(t, meddle, `{"services":{"app":{"version":"2.0"}}}`))
	s.book(`version: 1
phases:
  - backup: {host: {production: [` + strings.Join(declared, ", ") + `]}}
  - build: {hosts: [production]}
  - switch: {host: production, confirm_within: 30m}
  - validate: {checks: [{command: "sleep 100", within: 2m}]}
`)
	before := s.look(s.production)
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 12*time.Minute, "the end of the activation", s.contacts)
	_ = cmd.Process.Kill()
	wait()
	s.equal("the new system runs", s.production.Enter(t, "cat /etc/hand.conf"), "managed now")
	var armed agent.Guard
	if err := json.Unmarshal([]byte(s.production.Enter(t, "cat /nix/var/deployer/runs/*/guard.json")), &armed); err != nil {
		t.Fatal(err)
	}
	s.production.Power(t, "reboot")
	s.production.WaitSSH(t)
	s.guardCloses(8 * time.Minute)
	s.judged(result{exit: 21}, before, 21)
	var now float64
	if err := json.Unmarshal([]byte(s.production.Enter(t, "cut -d' ' -f1 /proc/uptime")), &now); err != nil || now > armed.Deadline {
		t.Errorf("it went back %v s after the boot; the deadline was %v (%v)", now, armed.Deadline, err)
	}
}

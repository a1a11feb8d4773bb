package main_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

// A connection that is lost while the new system is activated is made again;
// the activation knows nothing of it.
func TestLabLostForAMoment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, `{"services":{"app":{"version":"1.2.0"}},"lab":{"activation":{"sleep":4}}}`)
	_, wait := s.start("run", "lab", "--yes")
	within(t, 60*time.Second, "the activation", func() bool { return strings.Contains(s.written(), "switch/test@production") })
	s.production.Net(t, "cut")
	time.Sleep(20 * time.Second) // the connection is given up after 15
	s.production.Net(t, "heal")
	if r := wait(); r.exit != 0 {
		t.Fatalf("exit %d\n%s", r.exit, r.err)
	}
	r := s.latest()
	r.tells("")
	r.lanes(state.Committed, state.Committed)
	s.serves(s.production, "1.2.0")
	activations := s.production.Enter(t, "journalctl -q --grep 'switching to system configuration.*"+filepath.Base(r.plan.Hosts[0].To)+"' | grep -v finished | wc -l")
	s.equal("activations", activations, "1")
}

// A system that cuts the host off cannot be undone by anybody from here. The
// run says so, and that a reboot brings the old system back; it does, and the
// rollback that the run names closes the lane.
func TestLabOutOfReach(t *testing.T) {
	for name, options := range map[string]string{
		"a firewall drops everything": `{"networking":{"firewall":{"dropAll":true}}}`,
		"the network goes down":       `{"lab":{"network":{"down":true}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, deep(t, options, `{"services":{"app":{"version":"2.0"}}}`))
			s.book(strings.Replace(runbook("app", ""), "/etc/hand.conf, ", "", 1)) // the root is new after a reboot
			before := s.look(s.production)
			r := s.run(31)
			s.says(r.result, "production is old after a reboot: its boot default was not touched ("+before.Facts.System+")")
			r.lanes(state.Restored, state.OutOfReach)
			r.restored("staging")
			r.notified()
			s.serves(s.staging, "1.0.0")

			s.production.Power(t, "reboot")
			s.production.WaitSSH(t)
			after := s.look(s.production)
			s.equal("what was booted", after.Facts.Booted, before.Facts.System)
			s.equal("production after the reboot", after, before)

			// Until it is closed, no other run may go over it.
			refused := s.run(15)
			s.says(refused.result, "run "+r.id+" changed production and was never finished", "deployer rollback "+r.id)
			refused.lanes(state.Untouched, state.Untouched)
			s.serves(s.staging, "1.0.0")

			rollback, _, _ := strings.Cut(s.hint(r.result, "deployer rollback "+r.id), "#")
			s.shell(0, rollback+" --yes")
			s.equal("production after the rollback", s.look(s.production), before)
			undo := s.latest()
			s.equal("lanes of the rollback", undo.end().Lanes, map[string]state.Status{"production": state.Restored})
			s.systems(`{"services":{"app":{"version":"1.3.0"}}}`, `{"services":{"app":{"version":"1.3.0"}}}`)
			s.run(0).lanes(state.Committed, state.Committed)
		})
	}
}

package main_test

import (
	"strings"
	"testing"

	"github.com/hbohlen/deployer/state"
)

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
			s.production.Net(t, "clear")
			s.production.WaitSSH(t)
			after := s.look(s.production)
			s.equal("what was booted", after.Facts.Booted, before.Facts.System)
			s.equal("production after the reboot", after, before)

			// Until it is closed, no other run may go over it.
			refused := s.want(15, "run", "lab", "--yes")
			s.says(refused, "run "+r.id+" changed this host and was never closed", "deployer rollback "+r.id)
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

package main_test

import (
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// A run that went well is undone exactly, once. The preview changes nothing.
func TestLabRollback(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.production.Enter(t, writeDeclared)
	s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, deep(t, meddle, `{"services":{"app":{"version":"2.0"}}}`))
	before := s.looks()
	first := s.run(0)
	s.serves(s.production, "2.0")

	after := s.looks()
	for _, args := range [][]string{{"rollback", "--dry-run"}, {"rollback", "--dry-run", "--json"}, {"rollback", first.id, "--dry-run"}} {
		r := s.want(0, args...)
		s.says(r, "/etc/hand.conf")
		for _, h := range first.plan.Hosts {
			if !strings.Contains(r.out, h.From.System) && !strings.Contains(r.out, phases.ShortPath(h.From.System)) {
				t.Errorf("%s does not say what %s goes back to:\n%s", r.line, h.Name, r.out)
			}
		}
	}
	s.says(s.want(10, "rollback"), "--yes") // nobody can be asked
	after()
	s.equal("runs", len(s.runs()), 1)

	res := s.want(0, "rollback", "--yes", "--reason", "a test")
	before()
	s.serves(s.production, "1.0.0")
	undo := s.latest()
	undo.result = res
	undo.restored("production", "staging")
	undo.lanes(state.Restored, state.Restored)
	undo.notified()
	first.notified()
	first.snapshots("production", s.production) // they are kept

	s.says(s.want(5, "rollback", first.id, "--yes"), first.id)
	s.says(s.want(5, "rollback", "--yes"), "no successful run")
	s.says(s.want(5, "rollback", undo.id, "--yes"), first.id)
	before()
	s.equal("runs", len(s.runs()), 2)
}

// A host that has moved on is not rolled back over somebody's head.
func TestLabRollbackOfAnOlderRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.run(0)
	s.systems("{}", `{"services":{"app":{"version":"1.2.0"}}}`)
	second := s.run(0)
	same := s.looks()
	r := s.want(5, "rollback", first.id, "--yes")
	s.says(r, "production does not run what run "+first.id+" left there", "nothing was changed")
	same()
	// In the order of the runs it works.
	for _, undone := range []*labRun{second, first} {
		res := s.want(0, "rollback", "--yes")
		if !strings.Contains(res.err, "run "+undone.id+" is rolled back and verified") {
			t.Errorf("%s", res.err)
		}
	}
	s.serves(s.production, "1.0.0")
	s.equal("the profile", s.production.Facts(t).Profile, "system-1-link")
}

// A boot partition that is full does not keep the old system from running. Only
// its boot default has to wait until there is room, and a person is told so.
func TestLabRollbackWithFullBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0"}},"lab":{"kernel":{"version":"6.12.7","size":4096}}}`)
	before := s.looks()
	first := s.run(0)
	s.lab("fill", string(s.production), "/boot")
	r := s.deployer("rollback", "--yes")
	s.serves(s.production, "1.0.0")
	s.serves(s.staging, "1.0.0")
	if r.exit != 0 {
		if r.exit != 30 {
			t.Errorf("exit %d", r.exit)
		}
		s.says(r, "What remains to be done by a person", "/bin/switch-to-configuration boot")
		s.latest().lanes(state.Restored, state.Stuck)
		s.lab("unfill", string(s.production), "/boot")
		s.want(0, "rollback", first.id, "--yes")
	}
	t.Logf("with /boot full: exit %d", r.exit)
	s.production.Enter(t, "rm -f /boot/.lab-fill")
	before()
}

// Data that the new version has migrated stays as it is, and the old version
// does not read it: the run is stuck, says so, and says what remains. When a
// person has mended the cause, the rollback that it names gets to the end.
func TestLabStuck(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0","schema":2,"healthy":false}}}`)
	s.book(runbook("app, healthy", ""))
	same := s.looks()
	r := s.run(30)
	r.tells("validate/healthy@production")
	r.lanes(state.Restored, state.Stuck)
	r.notified()
	s.says(r.result, "What remains to be done by a person", "systemctl start -- ", "app.service")
	if over := s.deployer("run", "lab", "--yes"); over.exit == 0 {
		t.Error("a run went over a host that is stuck")
	}
	s.production.Enter(t, "echo v1 > /var/lib/services/app/data")
	rollback, _, _ := strings.Cut(s.hint(r.result, "deployer rollback "+r.id), "#")
	s.shell(0, rollback+" --yes")
	same()
	s.serves(s.production, "1.0.0")
}

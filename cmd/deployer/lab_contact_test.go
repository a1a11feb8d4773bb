package main_test

import (
	"path/filepath"
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
	within(t, 60*time.Second, "the activation", s.activating)
	s.production.Net(t, "cut")
	time.Sleep(20 * time.Second) // the connection is given up after 10
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

package main_test

import (
	"fmt"
	"math/rand/v2"
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
	within(t, 60*time.Second, "the activation", s.activating)
	s.production.Net(t, "cut")
	time.Sleep(20 * time.Second) // the connection is given up after 10
	s.production.Net(t, "heal")
	r := wait()
	if r.exit != 0 {
		t.Fatalf("exit %d\n%s", r.exit, r.err)
	}
	s.says(r, "the connection was lost; connecting again")
	run := s.latest()
	run.tells("")
	run.lanes(state.Committed, state.Committed)
	s.serves(s.production, "1.2.0")
	activations := s.production.Enter(t, "journalctl -q --grep 'switching to system configuration.*"+filepath.Base(run.plan.Hosts[0].To)+"' | grep -v finished | wc -l")
	s.equal("activations", activations, "1")
}

// Wherever the connection goes for a moment, the run goes on: it had ended for a
// look at the host, of which nobody needed to know.
func TestLabLostAnywhereGoesOn(t *testing.T) {
	moments := []string{
		"staging/lock@staging", "staging/snapshot@staging", "staging/guard@staging", "staging/test@staging", "staging/boot@staging",
		"switch/lock@production", "switch/guard@production", "switch/test@production", "validate/profile@production", "validate/boot@production", "validate/confirm@production",
	}
	first := rand.IntN(len(moments))
	for pair := range 2 {
		t.Run(fmt.Sprint("pair ", pair+1), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			for round := range soak(2) {
				app := fmt.Sprintf(`{"services":{"app":{"version":"2.0.%d"}},"lab":{"activation":{"sleep":1}}}`, round)
				s.systems(app, app)
				moment := moments[(first+2*round+pair)%len(moments)]
				host := s.host(strings.SplitAfter(moment, "@")[1])
				kept, later := len(s.runs()), time.Duration(rand.IntN(1000))*time.Millisecond
				_, wait := s.start("run", "lab", "--yes")
				within(t, 90*time.Second, moment, func() bool { return len(s.runs()) > kept && strings.Contains(s.written(), `"`+moment+`"`) })
				time.Sleep(later)
				host.Net(t, "cut")
				time.Sleep(15 * time.Second) // the connection is given up after 10
				host.Net(t, "heal")
				r := wait()
				t.Logf("run %s lost %s after %s", s.latest().id, later, moment)
				if r.exit != 0 {
					t.Fatalf("exit %d\n%s", r.exit, r.err)
				}
				s.latest().lanes(state.Committed, state.Committed)
			}
		})
	}
}

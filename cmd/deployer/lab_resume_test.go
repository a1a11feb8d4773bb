package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// soak is how many runs each pair of hosts has to survive: make soak wants more.
func soak(rounds int) int {
	if n, err := strconv.Atoi(os.Getenv("DEPLOYER_SOAK")); err == nil {
		return n
	}
	return rounds
}

// Promise 9: the controller is killed at each phase's begin and anywhere between;
// `resume` ends the run, from its own record or from that of the hosts.
func TestLabKilledAnywhereIsResumed(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("DEPLOYER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("DEPLOYER_SEED=%d", seed)
	for pair := range 3 {
		t.Run(fmt.Sprint("pair ", pair+1), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			random := rand.New(rand.NewPCG(seed, uint64(pair)))
			for round := range soak(10) {
				s.survives(random, pair+3*round)
			}
		})
	}
}

// moments are when a controller is killed: when its record holds a word, and a
// little later.
var moments = []string{
	`"run.created"`, `"phase":"build","kind":"phase.started"`, `"phase":"staging","kind":"phase.started"`, `"staging/guard@staging"`, `"staging/test@staging"`,
	`"staging/profile@staging"`, `"staging/confirm@staging"`, `"phase":"switch","kind":"phase.started"`, `"switch/lock@production"`, `"switch/guard@production"`, `"switch/test@production"`,
	`"phase":"validate","kind":"phase.started"`, `"validate/profile@production"`, `"validate/boot@production"`, `"validate/confirm@production"`, `"run.finished"`,
}

// survives is one round: a run is killed, and taken up again.
func (s *site) survives(random *rand.Rand, round int) {
	s.Helper()
	app := fmt.Sprintf(`{"services":{"app":{"version":"2.0.%d"}}}`, round)
	s.systems(app, app)
	same := s.looks()
	moment := moments[round%len(moments)]
	later := time.Duration(random.IntN(400)) * time.Millisecond
	kept := len(s.runs())
	cmd, wait := s.start("run", "lab", "--yes")
	within(s.T, 90*time.Second, moment, func() bool { return len(s.runs()) > kept && strings.Contains(s.written(), moment) })
	time.Sleep(later)
	_ = cmd.Process.Kill()
	killed := wait()
	elsewhere := random.IntN(3) == 0
	if killed.exit == 0 { // it had ended
		if !strings.Contains(moment, "confirm@production") && !strings.Contains(moment, "run.finished") {
			s.Errorf("it was not killed after %s", moment)
		}
		return
	}
	run := s.latest()
	s.Logf("run %s killed %s after %s, elsewhere %t", run.id, later, moment, elsewhere)
	if elsewhere { // neither the record is there nor what was built; a copy that was under way holds that for a moment
		_ = os.RemoveAll(s.state)
		s.state = s.TempDir()
		for _, h := range run.plan.Hosts {
			s.shell(0, "timeout 30 sh -c 'until test ! -e "+h.To+" || nix-store --delete --ignore-liveness "+h.To+"; do sleep 0.1; done'")
		}
	}
	res := s.deployer("resume", run.id)
	switch {
	case res.exit == phases.ExitOK:
		for _, h := range run.plan.Hosts {
			s.agree(s.host(h.Name), h.To)
		}
	case res.exit == phases.ExitRefused && strings.Contains(res.err, "is over: succeeded"):
	case elsewhere && res.exit == phases.ExitRefused && slices.ContainsFunc(run.plan.Hosts, func(h phases.PlanHost) bool {
		return h.Name == "production" && h.To == s.production.Facts(s.T).System
	}): // its hosts were told that it is over
		for _, h := range run.plan.Hosts {
			s.agree(s.host(h.Name), h.To)
		}
	case elsewhere && (res.exit == phases.ExitRefused || res.exit == phases.ExitPrecondition): // it had come to no host, or had told none
		same()
		if res.exit == phases.ExitPrecondition {
			s.want(0, "unlock", run.id, "--reason", "it changed nothing")
		}
	default:
		s.Fatalf("exit %d: %s\n%s", res.exit, res.line, res.err)
	}
	if res.exit == phases.ExitOK {
		rec := s.latest()
		if end := state.Fold(rec.journal); end.Status != state.Succeeded {
			s.Errorf("the journal says %s", end.Status)
		}
	}
}

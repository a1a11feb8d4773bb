package main_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/state"
)

// A switch that somebody else runs is waited for, whichever step meets it.
func TestLabSwitchLocked(t *testing.T) {
	for step, when := range map[string]string{
		"switch/dry-activate@production": "[ -e %s ]", // once the system is copied
		"switch/test@production":         "ls /.snapshots/deployer/*-persist >/dev/null 2>&1",
	} {
		name, _, _ := strings.Cut(step, "@")
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			top := labtest.Build(t, s.dir, "hetzner-vps")
			when = strings.ReplaceAll(when, "%s", top)
			s.production.Enter(t, "mkdir -p /run/nixos; systemd-run -q --collect sh -c 'until "+when+"; do sleep 0.01; done; flock /run/nixos/switch-to-configuration.lock sh -c \"until [ -e /run/free ]; do sleep 0.1; done\"'")
			_, wait := s.start("run", "lab", "--yes")
			within(t, 60*time.Second, "the wait for the lock", func() bool { return strings.Contains(s.written(), string(state.StepRetry)) })
			time.Sleep(3 * time.Second)
			s.production.Enter(t, "touch /run/free")
			if r := wait(); r.exit != 0 {
				t.Fatalf("exit %d\n%s", r.exit, r.err)
			}
			r := s.latest()
			r.tells("")
			again := r.of(step, state.StepRetry)
			if len(again) == 0 || !strings.Contains(again[0].Reason, "another switch holds the lock") {
				t.Errorf("%s did not wait: %+v", step, r.of(step))
			}
			s.serves(s.production, "1.1.0")
		})
	}
}

// colleague is another controller: the same hosts, another checkout, other records.
func (s *site) colleague() *site {
	s.Helper()
	other := &site{T: s.T, pair: s.pair, dir: filepath.Join(s.TempDir(), "theirs"), state: s.TempDir()}
	s.shell(0, "cp -a . '"+other.dir+"'")
	return other
}

// Two runs at once: the second is told who holds the hosts, and changes nothing.
func TestLabSecondRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.book(runbook("app", "{for: 12s, every: 500ms, rollback_within: 12s, rules: [{unit: app.service, do: rollback}]}"))
	other := s.colleague()
	other.systems("{}", `{"services":{"app":{"version":"9.0"}}}`)
	other.book(`version: 1
phases:
  - build: {hosts: [production]}
  - switch: {host: production}
  - validate: {checks: [app]}
`)
	_, wait := s.start("run", "lab", "--yes")
	within(t, 60*time.Second, "the monitor", func() bool { return strings.Contains(s.written(), "monitor/watch@production") })
	first := s.latest()
	r := other.run(4)
	other.says(r.result, "locked", first.id, "untouched")
	other.shell(0, other.hint(r.result, "deployer status")) // it is there to be typed
	s.equal("the second run", state.Fold(r.journal).Status, state.Waiting)
	if res := wait(); res.exit != 0 {
		t.Errorf("the first run: exit %d\n%s", res.exit, res.err)
	}
	s.latest().tells("")
	s.serves(s.production, "1.1.0")
	// When the first has ended, theirs is planned anew and runs.
	other.run(0).tells("")
	s.serves(s.production, "9.0")
}

func within(t *testing.T, patience time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come within %s", what, patience)
		}
	}
}

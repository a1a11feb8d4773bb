package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/state"
)

// migrating is a system whose service migrates its data, so that the version
// before does not read it any more.
const migrating = `{"services":{"app":{"version":"2.0","schema":2}}}`

// dataSite has a subvolume of each policy, with data in it.
func dataSite(t *testing.T) *site {
	s := newSite(t)
	s.systems("{}", migrating)
	s.edit("/var/lib/services: keep", "/var/lib/services: {on_rollback: restore, pause: [app.service]}", "/var/lib/caddy: keep", "/var/lib/caddy: ask")
	s.production.Enter(t, "echo old > /persist/kept; echo old > /var/lib/caddy/asked; echo old > /var/lib/services/mine")
	return s
}

// holds wants what files of production say; what "" is wanted of is not there.
func (s *site) holds(files map[string]string) {
	s.Helper()
	for file, want := range files {
		if got := s.production.Enter(s.T, "cat "+file+" 2>/dev/null || true"); got != want {
			s.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

// replaced wants the state that a restore has replaced to be there still.
func (s *site) replaced(r result) {
	s.Helper()
	_, at, _ := strings.Cut(r.told(), "\n  production: /var/lib/services: what it was is kept as ")
	at, _, _ = strings.Cut(at, "\n")
	if got := s.production.Enter(s.T, "head -n1 "+at+"/app/data; cat "+at+"/later 2>/dev/null || true"); !strings.HasPrefix(got, "v2") {
		s.Errorf("what was replaced is %q in %q", got, at)
	}
}

// What a service migrated goes back with it, or stays, as each subvolume's
// policy says; and nothing is lost in either.
func TestLabDataGoesBackWithItsSystem(t *testing.T) {
	t.Parallel()
	s := dataSite(t)
	before := s.looks()
	plan := s.want(0, "plan", "lab")
	plan.out = strings.Join(strings.Fields(plan.out), " ")
	s.says(plan, "a rollback leaves /persist as", "puts /var/lib/services back", "asks about /var/lib/caddy", "meanwhile paused: app.service")
	first := s.run(0)
	first.snapshots("production", s.production)
	s.says(first.result, "the set is paused")
	s.serves(s.production, "2.0")
	s.production.Enter(t, "for f in /persist/kept /var/lib/caddy/asked /var/lib/services/mine /var/lib/services/later; do echo new > $f; done")
	migrated := map[string]string{"/persist/kept": "new", "/var/lib/caddy/asked": "new", "/var/lib/services/mine": "new", "/var/lib/services/later": "new"}

	after := s.looks()
	s.says(s.want(0, "rollback", "--dry-run"), "/var/lib/services/later", "lost", "/var/lib/services/app/data", "changed back", "a temporary snapshot was taken for this, and deleted", "--data restore")
	var rows []view.Undo
	if err := json.Unmarshal([]byte(s.want(0, "rollback", "--dry-run", "--json").out), &rows); err != nil || len(rows) != 2 {
		t.Fatal(err)
	}
	for _, d := range rows[0].Data {
		want := map[string]string{"/persist": "keep", "/var/lib/caddy": "ask", "/var/lib/services": "restore"}[d.Snapshot.Source]
		if d.Do != want || (d.Preview == nil) != (want == "keep") {
			t.Errorf("%s: %s, %v", d.Snapshot.Source, d.Do, d.Preview)
		}
	}
	s.says(s.want(10, "rollback", "--yes"), "--data keep", "--data restore", "nothing was changed")
	s.want(10, "rollback", "--yes", "--data", "restore", "--subvolume", "/none")
	after()
	s.holds(migrated)

	r := s.want(0, "rollback", "--yes", "--data", "keep")
	before()
	s.serves(s.production, "1.0.0")
	s.holds(map[string]string{"/persist/kept": "new", "/var/lib/caddy/asked": "new", "/var/lib/services/mine": "old", "/var/lib/services/later": ""})
	s.says(r, "/var/lib/caddy stays as the new system left it (on_rollback: ask)")
	s.replaced(r)
}

// The host by itself restores what is to be restored, and takes ask for keep.
func TestLabDataGoesBackWhenTheRunFails(t *testing.T) {
	t.Parallel()
	s := dataSite(t)
	s.systems("{}", deep(t, migrating, `{"services":{"app":{"healthy":false}}}`))
	s.edit("/var/lib/services: keep", "/var/lib/services: restore", "/var/lib/caddy: keep", "/var/lib/caddy: ask")
	s.book(runbook("app, healthy", ""))
	before := s.looks()
	r := s.run(20)
	r.lanes(state.Restored, state.Restored)
	before()
	s.serves(s.production, "1.0.0")
	s.holds(map[string]string{"/persist/kept": "old", "/var/lib/services/mine": "old"})
	s.says(r.result, "/var/lib/caddy stays as the new system left it (on_rollback: ask)")
	s.replaced(r.result)
}

// With --data a person decides of one subvolume, whatever its policy.
func TestLabDataByHand(t *testing.T) {
	t.Parallel()
	s := dataSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
	s.edit("/persist: keep", "/persist: {on_rollback: ask, stop: [app.service]}")
	s.says(s.run(0).result, "the set is stopped")
	s.production.Enter(t, "for f in /persist/kept /var/lib/caddy/asked /var/lib/services/mine; do echo new > $f; done")
	s.want(0, "rollback", "--yes", "--data", "restore", "--subvolume", "/persist", "--subvolume", "/var/lib/caddy")
	s.holds(map[string]string{"/persist/kept": "old", "/var/lib/caddy/asked": "old", "/var/lib/services/mine": "new"})
	s.serves(s.production, "1.0.0")
}

// What --data had chosen was chosen anew by `resume`, by policy, and the host
// refused that: half restored, it was said to be unchanged. And `resume` took
// back the hosts, too, that --host had left out; so did `rollback` of it.
func TestLabACutRollbackKeepsItsChoiceOfData(t *testing.T) {
	for name, c := range map[string]struct {
		also string
		then []string
	}{
		"controller":            {"true", []string{"resume"}},
		"and what it had begun": {killAgents, []string{"resume"}},
		"rolled back by name":   {"true", []string{"rollback", "last", "--yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
			s.edit("/persist: keep", "/persist: {on_rollback: keep, stop: [slow.service]}")
			s.production.Enter(t, "printf '[Service]\\nExecStart=/bin/sleep infinity\\nExecStop=/bin/sleep 5\\n' > /run/systemd/system/slow.service && systemctl start slow")
			files := []string{"/persist/chosen", "/var/lib/services/kept"}
			say := func(what string) {
				s.production.Enter(t, "for f in "+strings.Join(files, " ")+"; do echo "+what+" > $f; done; sync")
			}
			say("old")
			before := s.look(s.production)
			deployed := s.run(0).id
			left := s.look(s.staging)
			say("new")
			cmd, wait := s.start("rollback", "--yes", "--host", "production", "--data", "restore", "--subvolume", "/persist")
			within(t, time.Minute, "the restore", func() bool {
				jobs, _ := s.production.Try("ls /nix/var/deployer/runs/" + deployed + "/data-*.json")
				return jobs != ""
			})
			_ = cmd.Process.Kill()
			wait()
			s.production.Enter(t, c.also)
			s.want(0, c.then...)
			s.equal("production", s.look(s.production), before)
			s.equal("staging", s.look(s.staging), left)
			s.serves(s.production, "1.0.0")
			s.holds(map[string]string{files[0]: "old", files[1]: "new"})
		})
	}
}

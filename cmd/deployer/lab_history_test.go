package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/state"
)

const profile = "/nix/var/nix/profiles/system"

// dies is a system that is committed before it turns out to be no good.
func dies(version string) string {
	return `{"services":{"app":{"version":"` + version + `","dieAfter":2}}}`
}

// The histories in which `nix-env --rollback`, "the next lower number", is not
// what was running. Generation 1 is what lab hosts start with.
func TestLabHistories(t *testing.T) {
	for name, history := range map[string]func(s *site) (running, link string, committed int){
		"back to 1, then a new system": func(s *site) (string, string, int) {
			s.generation(`{"services":{"app":{"version":"1.2.0"}}}`)
			s.generation(`{"services":{"app":{"version":"1.3.0"}}}`)
			running := s.back()
			s.systems("{}", dies("2.0"))
			return running, "system-1-link", 4
		},
		"back to 1, then 3 again": func(s *site) (string, string, int) {
			s.generation(`{"services":{"app":{"version":"1.2.0"}}}`)
			s.generation(dies("1.3.0"))
			return s.back(), "system-1-link", 3 // Nix uses it again
		},
		"3 again while 1 is running": func(s *site) (string, string, int) {
			s.generation(`{"services":{"app":{"version":"1.2.0"}}}`)
			three := s.generation(dies("1.3.0"))
			s.production.Enter(s.T, three+"/bin/switch-to-configuration boot 2>&1")
			return s.production.Facts(s.T).System, "system-3-link", 0
		},
		"a specialisation is running": func(s *site) (string, string, int) {
			two := s.generation(`{"specialisation":{"quiet":{"configuration":{"services":{"app":{"version":"1.0.0"}}}}},"services":{"app":{"version":"1.2.0"}}}`)
			s.production.Enter(s.T, two+"/bin/switch-to-configuration boot 2>&1 && "+two+"/specialisation/quiet/bin/switch-to-configuration test 2>&1")
			s.systems("{}", dies("2.0"))
			return strings.TrimSpace(s.production.Enter(s.T, "readlink -f "+two+"/specialisation/quiet")), "system-2-link", 3
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.book(`version: 1
phases:
  - build: {hosts: [production]}
  - switch: {host: production}
  - validate: {checks: [app]}
  - monitor: {for: 6s, every: 500ms, rollback_within: 6s, rules: [{unit: app.service, do: rollback}]}
`)
			running, link, committed := history(s)
			before := s.look(s.production)
			s.equal("running before", before.Facts.System, running)
			s.equal("the profile before", before.Facts.Profile, link)
			r := s.run(20)
			r.tells("monitor/watch@production")
			s.equal("the generation that was committed", r.committed("production"), committed)
			s.equal("production", s.look(s.production), before)
			s.serves(s.production, "1.0.0")
		})
	}
}

// committed is the profile's generation after the commit, 0 where there was
// nothing to commit.
func (r *labRun) committed(lane string) int {
	r.Helper()
	facts := struct{ Profile int }{}
	for _, rec := range r.of("validate/boot@"+lane, state.StepDone) {
		if err := json.Unmarshal(rec.Data, &facts); err != nil {
			r.Fatal(err)
		}
	}
	return facts.Profile
}

// generation makes a system production's next generation, without running it.
func (s *site) generation(options string) string {
	s.Helper()
	s.systems("{}", options)
	top := labtest.Build(s.T, s.dir, "hetzner-vps")
	s.shell(0, "nix copy --to ssh://"+string(s.production)+" "+top)
	s.production.Enter(s.T, "nix-env -p "+profile+" --set "+top)
	return top
}

// back is what an operator types to go back to generation 1.
func (s *site) back() string {
	s.Helper()
	link := profile + "-1-link"
	s.production.Enter(s.T, "nix-env -p "+profile+" --switch-generation 1 && "+link+"/bin/switch-to-configuration switch 2>&1")
	return strings.TrimSpace(s.production.Enter(s.T, "readlink -f "+link))
}

package staging

import (
	"slices"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
)

// Staging goes the way of production, with its checks; a check that is its own,
// too, is a step of its own.
func TestCompile(t *testing.T) {
	web, own := &runbooks.Check{Name: "web"}, &runbooks.Check{Name: "own"}
	s := &runbooks.Phase{Staging: &runbooks.Staging{Host: "s1", Checks: []*runbooks.Check{web, own}}}
	in := &phases.Inputs{Project: &runbooks.Project{}, Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{s, {Validate: &runbooks.Validate{Checks: []*runbooks.Check{web}}}}}}
	steps, err := Compile(in, s)
	var got []string
	for _, s := range steps {
		got = append(got, s.Name())
		if phases.HostOf(s) != "s1" {
			t.Errorf("%s runs on %q", s.Name(), phases.HostOf(s))
		}
	}
	if want := []string{"lock", "copy", "dry-activate", "guard", "test", "reboot", "contact", "web", "profile", "boot", "confirm", "web-2", "own", "evidence"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q (%v)", got, want, err)
	}
}

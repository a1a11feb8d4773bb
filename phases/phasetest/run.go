package phasetest

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Agents gives an agent for every machine.
type Agents struct{}

// For implements phases.Agents.
func (Agents) For(string) (string, func() (io.ReadCloser, error), error) {
	return "cafe", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("agent")), nil }, nil
}

// Run is a run with a folder, and a lane on each Machine that was looked at and
// is to run New. The controller answers nix; time is the test's.
func Run(machines ...*Machine) (r *phases.Run, controller *hosttest.Fake) {
	t := machines[0].t
	controller = hosttest.New(t, "controller")
	dir := t.TempDir()
	r = &phases.Run{
		ID: "r1", Type: "deploy", Plan: &phases.Plan{Digest: "plan"}, Runbook: &runbooks.Runbook{Name: "production"},
		Project: &runbooks.Project{Dir: dir, Flake: ".", Hosts: map[string]*runbooks.Host{}},
		Dir:     &state.RunDir{ID: "r1", Path: filepath.Join(dir, ".run")},
		Tools: phases.Tools{
			Controller: controller, Nix: &nix.Nix{Host: controller, Dir: dir}, Agents: Agents{}, Now: time.Now, Owner: "me@here",
		},
	}
	if err := os.MkdirAll(r.Dir.OutputDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		name := m.Fake.Name()
		r.Project.Hosts[name] = &runbooks.Host{Name: name, Address: name + ".example:22", System: name, Build: "controller"}
		l := phases.NewLane(r.Project.Hosts[name], Agents{})
		l.Host, l.Seen, l.To = conn{m.Fake, m}, m.World().Facts, nix.System{Attr: name, Out: New}
		r.Lanes = append(r.Lanes, l)
		t.Cleanup(func() { l.Drop(); m.Away(io.EOF) })
	}
	return r, controller
}

// Env is what a step of the Machine gets from outside of a Runner.
func (m *Machine) Env() *phases.Env {
	r, _ := Run(m)
	return &phases.Env{Run: r, Lane: r.Lanes[0], Phase: "phase", Step: "phase/step@" + m.Fake.Name(), Attempt: 1}
}

var _ nix.Target = conn{}

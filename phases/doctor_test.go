package phases_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

// examined looks at one machine by a connection, with a step that finds something.
func examined(t *testing.T, m *phasetest.Machine, f *hosttest.Fake) phases.Examined {
	r, _ := phasetest.Run(m)
	found := []phases.Finding{{Host: "h1", What: "no room"}}
	r.Phases = []phases.Compiled{{Name: "switch", Steps: []phases.Step{planned{On: phases.On{Lane: "h1"}, found: found}}}}
	r.Dial = func(context.Context, *runbooks.Host) (host.Host, error) { return f, nil }
	return r.Examine(t.Context())[0]
}

func TestExamineInstallsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := hosttest.New(t, "h1")
		f.On(hosttest.Prefix("sh", "-s")).Out(facts("h1"))
		f.On(hosttest.Prefix(agent.LauncherPath, "run")).Reply(agent.ExitNotInstalled, "", "")
		x := examined(t, phasetest.Make(t, "h1"), f)
		if x.Err != nil || x.AgentErr != nil || x.Agent || x.Seen.System != phasetest.Old || len(x.Findings) != 1 {
			t.Errorf("%+v", x)
		}
		for _, line := range f.Lines() {
			if strings.Contains(line, "install") {
				t.Errorf("ran %s", line)
			}
		}
	})
}

// What only root sees comes from the agent, where it is there.
func TestExamineAsksTheAgentThatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		m.Fake.On(hosttest.Prefix("sh", "-s")).Out(facts("h1"))
		m.With(func(w *phasetest.World) { w.Facts.OpenRun, w.Facts.Holder = "r0", &agent.Holder{Run: "r0"} })
		x := examined(t, m, m.Fake)
		if x.Err != nil || x.AgentErr != nil || !x.Agent || x.Seen.OpenRun != "r0" || x.Seen.Holder == nil || x.Seen.User != "root" {
			t.Errorf("%+v", x)
		}
		if asked := m.World().Asked; !slices.Equal(asked, []string{agent.OpFacts, agent.OpDiscover}) {
			t.Errorf("asked for %v", asked)
		}
	})
}

func TestExamineTellsTheSkewOfClocks(t *testing.T) {
	for clock, want := range map[time.Duration]time.Duration{0: 0, -time.Hour: -time.Hour, time.Hour: time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m := phasetest.Make(t, "h1")
			now := time.Now().UTC().Add(clock).Format(time.RFC3339)
			m.Fake.On(hosttest.Prefix("sh", "-s")).Out(strings.Replace(facts("h1"), "uid=0\n", "uid=0\ntime="+now+"\n", 1))
			if x := examined(t, m, m.Fake); x.Skew != want {
				t.Errorf("%s, want %s", x.Skew, want)
			}
		})
	}
}

// The plan says which of the two systems lets a reboot end the guard.
func TestPlanSaysWhatARebootWouldEnd(t *testing.T) {
	with, without := t.TempDir(), t.TempDir()
	unit := filepath.Join(with, agent.ModuleUnit)
	if err := os.MkdirAll(filepath.Dir(unit), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		old  bool
		to   string
		want string
	}{
		{true, with, ""}, {true, "/nix/store/not-here", ""}, {true, without, "the new system"}, {false, with, "the old system"}, {false, without, "the new system"},
	} {
		p, err := planOf(t, []string{"h1"}, plain, func(r *phases.Run, _ map[string]*hosttest.Fake) {
			r.Lanes[0].To.Out = c.to
			f := hosttest.New(t, "h1")
			f.On(hosttest.Prefix("sh", "-s")).Out(strings.Replace(facts("h1"), "uid=0\n", "uid=0\n"+map[bool]string{true: "module=1\n"}[c.old], 1))
			f.On(hosttest.Prefix("sh", "-c")).Out("")
			r.Dial = func(context.Context, *runbooks.Host) (host.Host, error) { return f, nil }
			r.Controller.(*hosttest.Fake).On(hosttest.Prefix("nix")).Out("{}")
		})
		if err != nil {
			t.Fatal(err)
		}
		if notes := strings.Join(p.Hosts[0].Notes, "\n"); strings.Contains(notes, "no guard") != (c.want != "") || !strings.Contains(notes, c.want) {
			t.Errorf("%+v: %s", c, notes)
		}
	}
}

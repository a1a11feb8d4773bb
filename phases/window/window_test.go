package window

import (
	"errors"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
)

func compile(t *testing.T, window, zone string) phases.Step {
	t.Helper()
	in := &phases.Inputs{
		Project: &runbooks.Project{Hosts: map[string]*runbooks.Host{"h1": {Zone: zone}}},
		Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{{Switch: &runbooks.Switch{Host: "h1"}}}},
	}
	steps, err := Compile(in, &runbooks.Phase{Window: &runbooks.Window{Open: window}})
	if err != nil || len(steps) != 1 {
		t.Fatalf("%d steps, %v", len(steps), err)
	}
	return steps[0]
}

func TestWindow(t *testing.T) {
	day := func(d, hour int) time.Time { return time.Date(2026, 7, d, hour, 0, 0, 0, time.UTC) } // the 4th is a Saturday
	for _, tt := range []struct {
		name, window, zone string
		now                time.Time
		plan, reason       string // reason "": it is open
		until              time.Time
	}{
		{"always", "always", "", day(1, 12), "always", "", time.Time{}},
		{"open", "sat 02:00-04:00 UTC", "", day(4, 3), "sat 02:00-04:00 UTC: open until Sat 4 Jul 04:00 UTC", "", time.Time{}},
		{"opens now", "sat 02:00-04:00 UTC", "", day(4, 2), "sat 02:00-04:00 UTC: open until Sat 4 Jul 04:00 UTC", "", time.Time{}},
		{"not yet", "sat 02:00-04:00 UTC", "", day(1, 12), "sat 02:00-04:00 UTC: opens Sat 4 Jul 02:00 UTC; the run waits for it", "the window opens Sat 4 Jul 02:00 UTC", day(4, 2)},
		{"just over", "sat 02:00-04:00 UTC", "", day(4, 4), "sat 02:00-04:00 UTC: opens Sat 11 Jul 02:00 UTC; the run waits for it", "the window opens Sat 11 Jul 02:00 UTC", day(11, 2)},
		{"in the host's zone", "sat 02:00-04:00 UTC", "Europe/Berlin", day(1, 12), "sat 02:00-04:00 UTC: opens Sat 4 Jul 04:00 CEST; the run waits for it", "the window opens Sat 4 Jul 04:00 CEST", day(4, 2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, tt.window, tt.zone)
			env := &phases.Env{Run: &phases.Run{Tools: phases.Tools{Now: func() time.Time { return tt.now }}}}
			if c, err := s.(phases.Planner).Plan(t.Context(), env); err != nil || c.Text != tt.plan {
				t.Errorf("plan %q, want %q (%v)", c.Text, tt.plan, err)
			}
			err := s.Do(t.Context(), env)
			if tt.reason == "" {
				if err != nil {
					t.Errorf("open, but %v", err)
				}
				return
			}
			var wait phases.Wait
			if !errors.As(err, &wait) || wait.Reason != tt.reason || !wait.Until.Equal(tt.until) {
				t.Errorf("got %+v (%v)", wait, err)
			}
		})
	}
}

func TestBadWindow(t *testing.T) {
	if _, err := Compile(&phases.Inputs{}, &runbooks.Phase{Window: &runbooks.Window{Open: "soon"}}); err == nil {
		t.Error("compiled")
	}
}

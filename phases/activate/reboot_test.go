package activate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

// person agrees to everything, or to nothing.
type person struct{ no error }

func (p person) Sign(context.Context, string, string) (string, error) { return "me", p.no }

// The choice is made from what dry-activate says and what the runbook allows,
// before anything is switched.
func TestRebootIsChosen(t *testing.T) {
	nobody := &phases.Failure{Exit: phases.ExitUsage, Err: errors.New("nobody can be asked"), Hint: []string{"--sign reboot"}}
	const init, other = "the new init cannot be switched to live", "refuses to switch live: dbus -> broker"
	inhibited := agent.ExecResult{Code: 1, Stderr: []byte("Pre-switch check 'switchInhibitors' failed\ndbus -> broker\n")}
	for name, tt := range map[string]struct {
		policy string
		check  bool // survives-reboot is asked for
		dry    agent.ExecResult
		kernel bool // it is another one
		change func(*phases.Env, *phasetest.Machine)
		exit   int
		want   string // why it is chosen, or why it fails
	}{
		"live":                    {policy: "auto"},
		"another init":            {policy: "auto", dry: agent.ExecResult{Code: 100}, want: init},
		"inhibited":               {policy: "auto", dry: inhibited, want: other},
		"somebody agrees":         {policy: "ask", dry: inhibited, want: other},
		"nobody agrees":           {policy: "ask", dry: inhibited, change: func(e *phases.Env, _ *phasetest.Machine) { e.Ask = person{nobody} }, exit: 10, want: "nobody can be asked"},
		"the runbook agrees":      {policy: "ask", check: true, dry: inhibited, change: func(e *phases.Env, _ *phasetest.Machine) { e.Ask = person{nobody} }, want: other},
		"never":                   {policy: "never", dry: inhibited, exit: 1, want: "this needs a reboot, and the runbook says `reboot: never`"},
		"another kernel":          {policy: "auto", kernel: true, want: "kernel differ from what was booted"},
		"another kernel, ask":     {policy: "ask", kernel: true},
		"another kernel, never":   {policy: "never", kernel: true},
		"it fails":                {policy: "auto", dry: agent.ExecResult{Code: 1}, exit: 1, want: "dry-activate ended with exit code 1"},
		"no guard in the old one": {policy: "auto", dry: inhibited, change: func(e *phases.Env, _ *phasetest.Machine) { e.Lane.Seen.Module = false }, exit: 15, want: "the old system does not import"},
		"no way back by a reboot": {policy: "auto", dry: inhibited, change: func(e *phases.Env, _ *phasetest.Machine) { e.Lane.Before.Boot.System = e.Lane.To.Out }, exit: 15, want: "would not be undone by another"},
		"no guard in the new one": {policy: "auto", dry: inhibited, change: lacksUnit, exit: 15, want: "the new system does not import"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				l := env.Lane
				l.To.Out, env.Ask = t.TempDir(), person{}
				l.Before, l.Seen.Module = l.Seen, true
				l.Survey = nix.Survey{Units: map[string]string{}, Booted: map[string]string{"kernel": filepath.Join(l.To.Out, "kernel")}}
				if tt.kernel {
					l.Survey.Booted["kernel"] = "/nix/store/another"
				}
				if err := os.WriteFile(filepath.Join(l.To.Out, "kernel"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				m.Handle(agent.OpExec, func(json.RawMessage) (any, error) { return tt.dry, nil })
				if tt.change != nil {
					tt.change(env, m)
				}
				r := reboot{On: on, policy: tt.policy}
				if tt.check {
					r.check = &runbooks.Check{}
				}
				err := dry{on, r}.Do(t.Context(), env)
				got := l.Reboot
				if err != nil {
					got = err.Error()
				}
				if tt.exit == 0 && err != nil || tt.exit != 0 && phases.AsFailure(err).Exit != tt.exit || !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
					t.Errorf("%v, reboot %q", err, l.Reboot)
				}
				if why, _ := (test{On: on}).Skip(t.Context(), env); (why == "") != (l.Reboot == "") {
					t.Errorf("the live activation is skipped: %q", why)
				}
			})
		})
	}
}

func lacksUnit(_ *phases.Env, m *phasetest.Machine) {
	m.Handle(agent.OpProbe, func(args json.RawMessage) (any, error) { return agent.Sample{}, nil })
}

// The new system is chosen once, the guard is told, and only then the host is
// rebooted; the boot id tells whether it was.
func TestRebootStep(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(m *phasetest.Machine, w *phasetest.World) // what the boot brings
		before bool                                           // it has happened already
		trace  string
		want   string
	}{
		"new":                  {trace: "trial announce reboot"},
		"again, after a crash": {before: true},
		"the old one": {trace: "trial announce reboot", want: "the host booted 0000000…-nixos-system-old", change: func(_ *phasetest.Machine, w *phasetest.World) {
			w.Facts.Booted, w.Facts.System = phasetest.Old, phasetest.Old
		}},
		"the old one, crash": {before: true, want: "the host booted 0000000…-nixos-system-old", change: func(_ *phasetest.Machine, w *phasetest.World) { w.Facts.Booted = phasetest.Old }},
		"a unit fails": {trace: "trial announce reboot", want: "after the reboot units fail now: web.service", change: func(_ *phasetest.Machine, w *phasetest.World) {
			w.Facts.Failed = []string{"web.service", "bad.service"}
		}},
		"no guard":      {trace: "trial announce reboot", want: "the guard does not watch", change: func(_ *phasetest.Machine, w *phasetest.World) { delete(w.Handlers, agent.OpLane) }},
		"it stays away": {trace: "trial announce reboot", want: "did not come back from its reboot within 5m0s", change: func(m *phasetest.Machine, _ *phasetest.World) { m.Fake.Unreachable(io.EOF) }},
		"it stays up":   {trace: "trial announce reboot", want: "it is still up", change: func(_ *phasetest.Machine, w *phasetest.World) { w.Facts.BootID = "boot-1" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				env.Lane.Seen.Module = true
				env.Lane.Before = env.Lane.Seen
				env.Lane.Before.Failed = []string{"bad.service"}
				r := reboot{On: on, policy: "auto", within: time.Minute}
				boot := func(w *phasetest.World) {
					w.Facts.BootID, w.Facts.System, w.Facts.Booted = "boot-2", phasetest.New, phasetest.New
					w.Handlers[agent.OpLane] = func(json.RawMessage) (any, error) {
						return agent.Lane{Watching: true, Guard: &agent.Guard{BootID: "boot-2", Left: 60}}, nil
					}
					if tt.change != nil {
						tt.change(m, w)
					}
				}
				m.Handle(agent.OpAnnounce, func(args json.RawMessage) (any, error) {
					m.Trace.Add("announce")
					if string(args) != `{"run":"r1","budget":60}` {
						t.Errorf("announced %s", args)
					}
					return agent.Guard{}, nil
				})
				m.Handle(agent.OpApply, func(args json.RawMessage) (any, error) {
					var op agent.Operation
					if err := json.Unmarshal(args, &op); err != nil || op.System != phasetest.New {
						t.Errorf("%+v", op)
					}
					out, err := m.Default(agent.OpApply, args)
					if op.Op == agent.DoReboot {
						m.With(boot)
						return nil, phasetest.ErrDie
					}
					return out, err
				})
				if tt.before {
					m.With(boot)
				}
				if err := r.Do(t.Context(), env); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if got := m.Trace.String(); got != tt.trace {
					t.Errorf("did %q, want %q", got, tt.trace)
				}
			})
		})
	}
}

// What was activated live is not rebooted; what was not, is. A check that wants
// a reboot gets one in any case, and needs the guard that outlives it.
func TestRebootIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		env := m.Env()
		env.Lane.Before = env.Lane.Seen
		r, asked := reboot{On: on, policy: "ask"}, reboot{On: on, policy: "ask", check: &runbooks.Check{Name: "survives-reboot"}}
		skips := func(r reboot) bool {
			why, err := r.Skip(t.Context(), env)
			return err == nil && why != ""
		}
		live := []bool{skips(r), skips(asked)}
		m.With(func(w *phasetest.World) { w.Facts.System = phasetest.New })
		if live = append(live, skips(r), skips(asked)); !slices.Equal(live, []bool{false, false, true, false}) {
			t.Errorf("skipped: %v", live)
		}
		if len(r.Requires(t.Context(), env)) != 0 || len(asked.Requires(t.Context(), env)) != 1 || asked.Name() != "survives-reboot" {
			t.Error("a guard is required of the wrong one")
		}
		undo, _ := r.Undo(t.Context(), env)
		if got := fmt.Sprint(phases.Words(undo[0]), ", ", phases.Words(undo[1]), undo[1].BootID); got != "take the trial boot back, if there is one, reboot into 0000000…-nixos-system-oldboot-1" {
			t.Error(got)
		}
	})
}

var _ phases.Asker = person{}

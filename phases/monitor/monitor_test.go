package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type records struct{ list []state.Record }

func (r *records) Event(rec state.Record) { r.list = append(r.list, rec) }

// unit is a rule without a condition, disk one with.
func unit(do string) *runbooks.Rule {
	return &runbooks.Rule{Do: do, Check: &runbooks.Check{Name: "web", Kind: "unit", Unit: "web.service", Timeout: time.Second}}
}

func disk(do string) *runbooks.Rule {
	return &runbooks.Rule{Do: do, Check: &runbooks.Check{Name: "disk", Kind: "disk", Disk: "/", When: "used_percent > 90", Timeout: time.Second}}
}

// watchFor looks once a minute for five, rolls back within the first two, and
// gets an answer of the given list at each look, the last one for ever.
func watchFor(t *testing.T, rule *runbooks.Rule, list ...any) (notes []string, o *phases.Outcome, r *phases.Run, took time.Duration) {
	m := phasetest.Make(t, "h1")
	m.Handle(agent.OpProbe, func(json.RawMessage) (any, error) {
		next := list[0]
		if len(list) > 1 {
			list = list[1:]
		}
		err, failed := next.(error)
		switch {
		case failed && errors.Is(err, errGone):
			m.Away(errors.New("for a moment"))
			m.Away(nil)
			return nil, phasetest.ErrDie
		case failed && errors.Is(err, errDenied):
			m.Away(&host.Error{Kind: host.Denied, Host: "h1", Err: errors.New("no key fits")})
			return nil, phasetest.ErrDie
		case failed:
			return nil, err
		}
		return next, nil
	})
	r, _ = phasetest.Run(m)
	w := &watch{phases.On{Lane: "h1"}, &runbooks.Monitor{For: 5 * time.Minute, Every: time.Minute, RollbackWithin: 2 * time.Minute, Rules: []*runbooks.Rule{rule}}}
	r.Phases = []phases.Compiled{{Name: "monitor", Steps: []phases.Step{w}}}
	seen, start := &records{}, time.Now()
	o = (&phases.Runner{Run: r, Log: &phases.Log{Sinks: []phases.Sink{seen}}}).Execute(t.Context())
	for _, rec := range seen.list {
		if rec.Kind == state.Check {
			notes = append(notes, rec.Text)
		}
	}
	return notes, o, r, time.Since(start)
}

var (
	errGone   = errors.New("the link goes")
	errDenied = errors.New("logins are denied from now on")
	well      = agent.Sample{OK: true, Detail: "active"}
	ill       = agent.Sample{Detail: "inactive"}
)

func used(percent float64) agent.Sample {
	return agent.Sample{OK: true, Detail: fmt.Sprintf("%g %% used", percent), Values: map[string]float64{"used_percent": percent}}
}

func TestWatch(t *testing.T) {
	refused := &agent.Error{Code: "timeout", Message: "the probe did not end"}
	for _, tt := range []struct {
		name   string
		rule   *runbooks.Rule
		list   []any
		notes  []string
		alerts []string
		took   time.Duration
		fails  string
	}{
		{"well all the time", unit("rollback"), []any{well}, nil, nil, 5 * time.Minute, ""},
		{"a rule without a condition: not well is a breach", unit("alert"), []any{ill}, []string{"alert: web: inactive"}, []string{"h1: web: inactive"}, 5 * time.Minute, ""},
		{"a rule with a condition: a breach when it holds", disk("alert"), []any{used(95)}, []string{"alert: disk: 95 % used"}, []string{"h1: disk: 95 % used"}, 5 * time.Minute, ""},
		{"a rule with a condition that does not hold", disk("alert"), []any{used(50)}, nil, nil, 5 * time.Minute, ""},
		{"said once, not at every look", unit("warn"), []any{ill}, []string{"warn: web: inactive"}, nil, 5 * time.Minute, ""},
		{"cleared", unit("alert"), []any{well, ill, ill, well}, []string{"alert: web: inactive", "cleared: web"}, nil, 5 * time.Minute, ""},
		{"cleared and breached again", unit("alert"), []any{ill, well, ill}, []string{"alert: web: inactive", "cleared: web", "alert: web: inactive"}, []string{"h1: web: inactive"}, 5 * time.Minute, ""},
		{"rolls back at the second look", unit("rollback"), []any{well, ill}, []string{"breached, looking once more: web: inactive"}, nil, 2 * time.Minute, "web: inactive"},
		{"one bad look alone does not roll back", unit("rollback"), []any{well, ill, well}, []string{"breached, looking once more: web: inactive", "cleared: web"}, nil, 5 * time.Minute, ""},
		{"rolls back at the last moment", unit("rollback"), []any{well, well, ill}, []string{"breached, looking once more: web: inactive"}, nil, 3 * time.Minute, "web: inactive"},
		{"too late to roll back: alerts", unit("rollback"), []any{well, well, well, ill}, []string{"alert: web: inactive"}, []string{"h1: web: inactive"}, 5 * time.Minute, ""},
		{"no data is a breach", disk("alert"), []any{agent.Sample{OK: true}}, []string{"alert: disk: no data for used_percent"}, []string{"h1: disk: no data for used_percent"}, 5 * time.Minute, ""},
		{"no answer is a breach", unit("rollback"), []any{agent.Sample{}}, []string{"breached, looking once more: web: it is not well, and does not say why"}, nil, time.Minute, "web: it is not well, and does not say why"},
		{"an answer without words is a breach", disk("alert"), []any{agent.Sample{OK: true, Values: map[string]float64{"used_percent": 99}}},
			[]string{"alert: disk: used_percent > 90"}, []string{"h1: disk: used_percent > 90"}, 5 * time.Minute, ""},
		{"a link that goes is a breach, for as long as it is gone", unit("alert"), []any{errGone, well}, []string{"alert: web: the connection to the agent ended", "cleared: web"}, nil, 5 * time.Minute, ""},
		{"what cannot be measured is a breach like others", unit("warn"), []any{refused}, []string{"warn: web: the probe did not end"}, nil, 5 * time.Minute, ""},
		{"what cannot be measured late does not roll back", unit("rollback"), []any{well, well, well, refused}, []string{"alert: web: the probe did not end"}, []string{"h1: web: the probe did not end"}, 5 * time.Minute, ""},
		{"denied logins late do not roll back", unit("rollback"), []any{well, well, well, errDenied}, []string{"alert: web: the connection to the agent ended"},
			[]string{"h1: web: the connection to the agent ended"}, 5 * time.Minute, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				notes, o, r, took := watchFor(t, tt.rule, tt.list...)
				if !slices.EqualFunc(notes, tt.notes, strings.HasPrefix) || !slices.EqualFunc(r.Alerts, tt.alerts, strings.HasPrefix) || took.Round(time.Second) != tt.took {
					t.Errorf("noted %q\nwant  %q\nalerts %q, want %q; took %s, want %s", notes, tt.notes, r.Alerts, tt.alerts, took, tt.took)
				}
				want := phases.ExitOK
				switch {
				case tt.fails != "":
					want = phases.ExitFailed // nothing was changed: there is nothing to restore here
					if o.Failure == nil || o.Failure.Err.Error() != tt.fails {
						t.Errorf("failed with %v, want %s", o.Failure, tt.fails)
					}
				case len(tt.alerts) > 0:
					want = phases.ExitUnhealthy
				}
				if o.Exit != want {
					t.Errorf("exit %d, want %d: %v", o.Exit, want, o.Failure)
				}
			})
		})
	}
}

// The operator need not wait for the end of a watch of days.
func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		w := &watch{phases.On{Lane: "h1"}, &runbooks.Monitor{For: time.Hour, Every: time.Minute, Rules: []*runbooks.Rule{unit("alert")}}}
		if err := w.Do(ctx, m.Env()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCompileAndPlan(t *testing.T) {
	p := &runbooks.Phase{Monitor: &runbooks.Monitor{For: time.Hour, Every: time.Minute, RollbackWithin: 10 * time.Minute, Rules: []*runbooks.Rule{disk("alert")}}}
	in := &phases.Inputs{Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{{Switch: &runbooks.Switch{Host: "h1"}}, {Switch: &runbooks.Switch{Host: "h2"}}}}}
	steps, err := Compile(in, p)
	if err != nil || len(steps) != 2 || phases.Key("monitor", steps[1]) != "monitor/watch@h2" {
		t.Fatalf("%d steps, %v", len(steps), err)
	}
	c, err := steps[0].(phases.Planner).Plan(t.Context(), phasetest.Make(t, "h1").Env())
	want := []string{"alert: disk /, used_percent > 90, within 0s", "breaches roll back for the first 10m0s, later ones alert"}
	if err != nil || c.Text != "for 1h0m0s, every 1m0s: 1 rules" || !slices.Equal(c.Detail, want) {
		t.Errorf("%+v, %v", c, err)
	}
}

// Ctrl-C in a watch of days was not seen before its end.
func TestTheOperatorEndsTheWatchAndTheRunStaysCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		m.Handle(agent.OpProbe, func(json.RawMessage) (any, error) { return well, nil })
		r, _ := phasetest.Run(m)
		w := &watch{phases.On{Lane: "h1"}, &runbooks.Monitor{For: 24 * time.Hour, Every: time.Minute, Rules: []*runbooks.Rule{unit("alert")}}}
		r.Phases = []phases.Compiled{{Name: "monitor", Kind: "monitor", Steps: []phases.Step{w, &watch{w.On, w.conf}}}}
		stop, start := make(chan struct{}), time.Now()
		time.AfterFunc(90*time.Second, func() { close(stop) })
		o := (&phases.Runner{Run: r, Log: &phases.Log{}, Stop: stop}).Execute(t.Context())
		if took := time.Since(start); o.Exit != 0 || took > 2*time.Minute {
			t.Errorf("exit %d after %s", o.Exit, took)
		}
	})
}

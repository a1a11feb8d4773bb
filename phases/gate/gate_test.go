package gate

import (
	"context"
	"errors"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type asker struct {
	by  string
	err error
}

func (a asker) Sign(_ context.Context, who, text string) (string, error) {
	if who != "ops" || text != "team told" {
		return "", errors.New("asked " + who + ": " + text)
	}
	return a.by, a.err
}

type records struct{ list []state.Record }

func (r *records) Event(rec state.Record) { r.list = append(r.list, rec) }

func TestCompile(t *testing.T) {
	web := &runbooks.Check{Name: "web"}
	p := &runbooks.Phase{Gate: &runbooks.Gate{Items: []*runbooks.Item{{Check: web}, {Sign: "ops", Text: "team told"}, {Check: web}, {Sign: "dev", Text: "merged"}}}}
	in := &phases.Inputs{Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{{Switch: &runbooks.Switch{Host: "h1"}}, {Switch: &runbooks.Switch{Host: "h2"}}}}}
	steps, err := Compile(in, p)
	var got []string
	for _, s := range steps {
		got = append(got, phases.Key("gate", s))
	}
	want := []string{"gate/web@h1", "gate/web@h2", "gate/sign-2", "gate/web-2@h1", "gate/web-2@h2", "gate/sign-4"}
	if err != nil || len(got) != len(want) {
		t.Fatalf("steps %q, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("step %s, want %s", got[i], want[i])
		}
	}
}

// run runs the one signature of a gate, as the engine does.
func run(t *testing.T, a asker) ([]state.Record, *phases.Outcome) {
	s := sign{n: 1, who: "ops", text: "team told"}
	r, _ := phasetest.Run(phasetest.Make(t, "h1"))
	r.Ask = a
	r.Phases = []phases.Compiled{{Name: "ready", Kind: "gate", Steps: []phases.Step{s}}}
	seen := &records{}
	o := (&phases.Runner{Run: r, Log: &phases.Log{Sinks: []phases.Sink{seen}}}).Execute(t.Context())
	return seen.list, o
}

func TestSignatureIsRecorded(t *testing.T) {
	recs, o := run(t, asker{by: "me@here (--sign)"})
	var decided []state.Record
	for _, rec := range recs {
		if rec.Kind == state.Decision {
			decided = append(decided, rec)
		}
	}
	if o.Exit != 0 || len(decided) != 1 {
		t.Fatalf("exit %d, decided %v", o.Exit, decided)
	}
	if d := decided[0]; d.Phase != "ready" || d.Step != "ready/sign-1" || d.Text != "team told" || d.Reason != "signed for ops by me@here (--sign)" {
		t.Errorf("recorded %+v", d)
	}
}

// Who cannot be asked is told the flag; the exit code is the asker's.
func TestSignatureThatIsNotGiven(t *testing.T) {
	no := &phases.Failure{Exit: phases.ExitUsage, Err: errors.New("nobody can be asked"), Hint: []string{"# add --sign ops"}}
	_, o := run(t, asker{err: no})
	if o.Exit != phases.ExitUsage || o.Failure.Error() != "ready/sign-1: nobody can be asked" || len(o.Failure.Hint) != 1 || o.Failure.Safe != "nothing was changed on any host" {
		t.Errorf("exit %d, %+v", o.Exit, o.Failure)
	}
}

func TestPlan(t *testing.T) {
	if c, err := (sign{who: "ops", text: "team told"}).Plan(t.Context(), nil); err != nil || c.Text != "ops signs: team told" {
		t.Errorf("%+v, %v", c, err)
	}
}

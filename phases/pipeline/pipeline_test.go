package pipeline_test

import (
	"context"
	"encoding/json"
	"io"
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
	"github.com/hbohlen/deployer/phases/pipeline"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// deployment is the real pipeline on a fake production, and staging.
type deployment struct {
	run        *phases.Run
	machines   map[string]*phasetest.Machine
	trace      *phasetest.Trace
	controller *hosttest.Fake
	records    []state.Record
}

func (d *deployment) Append(rec *state.Record) error {
	rec.Seq = uint64(len(d.records) + 1)
	d.records = append(d.records, *rec)
	return nil
}

// Plan and Create are a snapshot provider.
func (d *deployment) Plan(context.Context, phases.SnapshotRequest) (phases.SnapshotPlan, error) {
	return phases.SnapshotPlan{}, nil
}

func (d *deployment) Create(_ context.Context, req phases.SnapshotRequest) (agent.SnapshotSet, []agent.Operation, error) {
	d.trace.Add("snapshot")
	return agent.SnapshotSet{Snapshots: []agent.Snapshot{{Source: "/persist", Path: "/persist/.s/" + req.Run, ReadOnly: true}}}, nil, nil
}

func (*deployment) Sign(_ context.Context, who, _ string) (string, error) {
	return who + "-person", nil
}

func check(unit string) *runbooks.Check {
	return &runbooks.Check{Name: unit, Kind: "unit", Unit: unit, Within: 30 * time.Second, Interval: time.Second, Timeout: time.Second}
}

// deploy compiles a runbook of these phases for the hosts that they name.
func deploy(t *testing.T, hosts []string, list ...*runbooks.Phase) *deployment {
	t.Helper()
	d := &deployment{trace: &phasetest.Trace{}, machines: map[string]*phasetest.Machine{}}
	var machines []*phasetest.Machine
	for _, h := range hosts {
		m := phasetest.Make(t, h)
		m.Trace = d.trace
		m.Handle(agent.OpExec, func(args json.RawMessage) (any, error) {
			if strings.Contains(string(args), "dry-activate") {
				d.trace.Add("dry-activate")
			}
			return agent.ExecResult{}, nil
		})
		m.Handle(agent.OpProbe, func(args json.RawMessage) (any, error) {
			var p agent.Probe
			_ = json.Unmarshal(args, &p)
			if p.Kind != "file" {
				d.trace.Add("check-" + p.Target)
			}
			return m.Default(agent.OpProbe, args)
		})
		d.machines[h], machines = m, append(machines, m)
	}
	d.run, d.controller = phasetest.Run(machines...)
	d.controller.On(hosttest.Prefix("nix", "--extra-experimental-features", "nix-command flakes", "copy")).Do(func(host.Command, io.Reader, io.Writer) host.Result {
		d.trace.Add("copy")
		return host.Result{}
	})
	d.controller.On(hosttest.Prefix("nix-store", "--realise"))
	d.controller.On(hosttest.Prefix("git"))
	d.run.Snapshots, d.run.Ask = d, d
	d.run.Project.Snapshots = &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/persist": {}}}
	for _, ph := range list {
		if ph.Name == "" {
			ph.Name = ph.Kind
		}
	}
	d.run.Runbook.Phases = list
	var err error
	if d.run.Phases, err = phases.Compile(pipeline.Kinds, &phases.Inputs{Project: d.run.Project, Runbook: d.run.Runbook}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *deployment) execute(t *testing.T) *phases.Outcome {
	r := &phases.Runner{Run: d.run, Log: &phases.Log{Run: d.run.ID, Journal: d}}
	return r.Execute(t.Context())
}

func switchTo(host string) *runbooks.Phase {
	return &runbooks.Phase{Kind: "switch", Switch: &runbooks.Switch{Host: host}}
}

func validate(checks ...*runbooks.Check) *runbooks.Phase {
	return &runbooks.Phase{Kind: "validate", Validate: &runbooks.Validate{Checks: checks}}
}

// steps are the steps that were done, in order.
func (d *deployment) steps() []string {
	var done []string
	for _, rec := range d.records {
		if rec.Kind == state.StepDone {
			done = append(done, rec.Step)
		}
	}
	return done
}

// Promise 1: what was before is recorded by path and number, pinned before
// anything is changed, and put back and compared; never "the previous one".
func TestPromise01ExactRestorePoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy(t, []string{"production"}, switchTo("production"), validate(check("web.service")),
			&runbooks.Phase{Kind: "monitor", Monitor: &runbooks.Monitor{For: time.Second, Every: time.Second, Rules: []*runbooks.Rule{{Check: check("web.service"), Do: "rollback"}}}})
		m := d.machines["production"]
		older := "/nix/store/0000000000000000000000000000000c-nixos-system-older"
		m.With(func(w *phasetest.World) { // the newest generation is not the one that runs
			w.Facts.Profile.Generations = []agent.Generation{{Number: 7, System: phasetest.Old}, {Number: 9, System: older}}
			w.Facts.Failed, w.Facts.Specialisation = []string{"bad.service"}, "fast"
		})
		d.run.Lanes[0].Seen = m.World().Facts
		before := m.World().Facts
		looks := 0
		m.Handle(agent.OpProbe, func(args json.RawMessage) (any, error) {
			if strings.Contains(string(args), `"unit"`) {
				looks++
			}
			return agent.Sample{OK: looks < 2, Detail: "down"}, nil // well while it is judged, down in the monitor
		})
		o := d.execute(t)
		if o.Exit != phases.ExitRolledBack {
			t.Fatalf("exit %d: %v", o.Exit, o.Failure)
		}
		w := m.World()
		if diff := phases.Differences(before, w.Facts); len(diff) > 0 {
			t.Errorf("not as before: %q", diff)
		}
		var got []string
		for _, op := range w.Recipe.Operations {
			got = append(got, phases.Words(op))
			switch op.Op {
			case agent.DoActivate:
				if op.System != phasetest.Old || op.Special != "" || op.Action != "test" || !slices.Equal(op.Allow, []string{"bad.service"}) {
					t.Errorf("activates %+v", op)
				}
			case agent.DoProfile:
				if op.Generation != 7 || op.System != phasetest.Old || op.Drop != 10 || op.DropSystem != phasetest.New {
					t.Errorf("sets the profile to %+v", op)
				}
			case agent.DoBoot:
				if *op.Boot != before.Boot {
					t.Errorf("sets the boot default to %+v", op.Boot)
				}
			}
		}
		if len(got) != 4 || w.Recipe.Before.BootID != "boot-1" || w.Recipe.Before.Profile.Generation != 7 {
			t.Errorf("the recipe is %q, before %+v", got, w.Recipe.Before)
		}
		if all := d.trace.String(); strings.Index(all, "pin-old") > strings.Index(all, "test") || !strings.Contains(all, "pin-old") {
			t.Errorf("pinned too late: %s", all)
		}
		for _, c := range append(d.controller.Lines(), m.Fake.Lines()...) {
			if strings.Contains(c, "--rollback") {
				t.Errorf("ran %s", c)
			}
		}
	})
}

// Promise 2: the order of a switch, on staging as on production.
func TestPromise02TryJudgeCommit(t *testing.T) {
	order := []string{"lock", "copy", "dry-activate", "snapshot", "guard", "test", "contact", "web.service", "profile", "boot", "confirm"}
	effects := "lock pin-old copy pin-new dry-activate snapshot guard test check-web.service set-profile boot confirm"
	t.Run("production", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := deploy(t, []string{"production"}, switchTo("production"), validate(check("web.service")))
			o := d.execute(t)
			if got := d.trace.String(); got != effects || o.Exit != 0 {
				t.Errorf("got %s\nwant %s\nexit %d %v", got, effects, o.Exit, o.Failure)
			}
			checkOrder(t, d.steps(), order)
		})
	})
	t.Run("staging", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := deploy(t, []string{"staging"}, &runbooks.Phase{Kind: "staging", Staging: &runbooks.Staging{Host: "staging", Checks: []*runbooks.Check{check("own.service")}}},
				validate(check("web.service")))
			o := d.execute(t)
			if got := d.trace.String(); got != effects+" check-own.service" || o.Exit != 0 {
				t.Errorf("got %s, exit %d %v", got, o.Exit, o.Failure)
			}
			checkOrder(t, d.steps(), append(order, "own.service", "evidence"))
		})
	})
}

func checkOrder(t *testing.T, keys, want []string) {
	t.Helper()
	var names []string
	for _, k := range keys {
		name, _, _ := strings.Cut(k[strings.IndexByte(k, '/')+1:], "@")
		names = append(names, name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
}

// Promise 2: whatever fails before the commit leaves profile and boot default
// alone, so that a power cut starts the old system; judgement comes over a
// connection that the new system has accepted.
func TestPromise02NothingIsCommittedBeforeJudgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy(t, []string{"production"}, switchTo("production"), validate(check("web.service")))
		m := d.machines["production"]
		dials := m.Fake.Dials()
		m.Handle(agent.OpProbe, func(args json.RawMessage) (any, error) {
			if !strings.Contains(string(args), `"unit"`) {
				return agent.Sample{OK: true}, nil
			}
			w := m.World()
			if w.Facts.System != phasetest.New || w.Facts.Profile.System != phasetest.Old || w.Facts.Boot.System != phasetest.Old {
				t.Errorf("judged while it runs %s, profile %s, boot %s", w.Facts.System, w.Facts.Profile.System, w.Facts.Boot.System)
			}
			if m.Fake.Dials() != dials+1 {
				t.Errorf("judged over connection %d", m.Fake.Dials())
			}
			return agent.Sample{Detail: "inactive"}, nil
		})
		o := d.execute(t)
		if o.Exit != phases.ExitRolledBack || strings.Contains(d.trace.String(), "set-profile") || strings.Contains(d.trace.String(), "~set-boot") {
			t.Errorf("exit %d: %s", o.Exit, d.trace)
		}
	})
}

// Promise 6: neither a gate nor a window stands before the way back.
func TestPromise06GatesAndWindowsOnlyGoForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy(t, []string{"production"},
			switchTo("production"),
			&runbooks.Phase{Kind: "gate", Gate: &runbooks.Gate{Items: []*runbooks.Item{{Sign: "ops", Text: "looks well"}}}},
			&runbooks.Phase{Kind: "window", Window: &runbooks.Window{Open: "sun 02:00-03:00 UTC"}},
			validate())
		d.run.Ask = refuses{}
		start := time.Now()
		if o := d.execute(t); o.Exit != phases.ExitRolledBack || time.Since(start) > time.Second {
			t.Errorf("exit %d after %s: %v", o.Exit, time.Since(start), o.Failure)
		}
	})
}

type refuses struct{}

func (refuses) Sign(context.Context, string, string) (string, error) {
	return "", &phases.Failure{Exit: phases.ExitUsage, Err: io.EOF}
}

// Forward, a window is waited for.
func TestWindowIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's time begins on Saturday, 1 January 2000, 00:00 UTC
		d := deploy(t, []string{"production"}, &runbooks.Phase{Kind: "window", Window: &runbooks.Window{Open: "sat 02:00-04:00 UTC"}}, switchTo("production"), validate())
		start := time.Now()
		if o := d.execute(t); o.Exit != 0 || time.Since(start) != 2*time.Hour {
			t.Errorf("exit %d after %s: %v", o.Exit, time.Since(start), o.Failure)
		}
	})
}

// A host that runs, and boots, the system already is not touched.
func TestUnchangedHostIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy(t, []string{"production"}, &runbooks.Phase{Kind: "build", Build: &runbooks.Build{Hosts: []string{"production"}}}, switchTo("production"), validate(check("web.service")))
		d.run.Lanes[0].To.Out = phasetest.Old
		o := d.execute(t)
		if got := d.trace.String(); got != "lock pin-old check-web.service" || o.Exit != 0 || o.Lanes["production"] != state.Untouched {
			t.Errorf("got %s, exit %d, %v", got, o.Exit, o.Lanes)
		}
	})
}

// Staging and production in one run: what production fails takes staging back too.
func TestFailureRestoresStagingToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deploy(t, []string{"staging", "production"}, &runbooks.Phase{Kind: "staging", Staging: &runbooks.Staging{Host: "staging"}}, switchTo("production"), validate(check("web.service")))
		d.machines["production"].Handle(agent.OpProbe, func(args json.RawMessage) (any, error) {
			return agent.Sample{OK: strings.Contains(string(args), `"file"`), Detail: "inactive"}, nil
		})
		o := d.execute(t)
		if o.Exit != phases.ExitRolledBack || o.Lanes["staging"] != state.Restored || o.Lanes["production"] != state.Restored {
			t.Errorf("exit %d, %v: %v", o.Exit, o.Lanes, o.Failure)
		}
	})
}

// The table has every kind that a runbook may use, once, in the order in which
// a deployment goes.
func TestKinds(t *testing.T) {
	var names []string
	for _, k := range pipeline.Kinds {
		names = append(names, k.Name)
	}
	if want := []string{"gate", "backup", "build", "staging", "window", "switch", "validate", "monitor"}; !slices.Equal(names, want) {
		t.Errorf("kinds %q, want %q", names, want)
	}
}

// The shipped runbook compiles, and every step's key is its own.
func TestShippedRunbookCompiles(t *testing.T) {
	p := &runbooks.Project{Hosts: map[string]*runbooks.Host{"staging": {Name: "staging"}, "production": {Name: "production"}}}
	for _, name := range runbooks.Shipped() {
		rb, err := runbooks.LoadRunbook(name, t.TempDir(), nil, p)
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := phases.Compile(pipeline.Kinds, &phases.Inputs{Project: p, Runbook: rb})
		if err != nil {
			t.Fatal(err)
		}
		if lanes := phases.Lanes(compiled); !slices.Equal(lanes, []string{"staging", "production"}) {
			t.Errorf("lanes %q", lanes)
		}
		keys := map[string]bool{}
		for _, ph := range compiled {
			for _, s := range ph.Steps {
				if k := phases.Key(ph.Name, s); keys[k] {
					t.Errorf("two steps are %s", k)
				} else {
					keys[k] = true
				}
			}
		}
	}
}

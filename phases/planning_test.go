package phases_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

// planned is a step of a plan: what it says, what it finds, what it would undo.
type planned struct {
	phases.On
	change phases.Change
	found  []phases.Finding
	undo   []agent.Operation
	err    error
}

func (planned) Name() string                          { return "step" }
func (planned) Do(context.Context, *phases.Env) error { panic("a plan does nothing") }
func (p planned) Plan(context.Context, *phases.Env) (phases.Change, error) {
	return p.change, p.err
}
func (p planned) Requires(context.Context, *phases.Env) []phases.Finding { return p.found }
func (p planned) Undo(context.Context, *phases.Env) ([]agent.Operation, error) {
	return p.undo, nil
}

// facts is what the script for hosts without an agent prints.
func facts(name string) string {
	return fmt.Sprintf("welcome\ndeployer-facts=1\nhostname=%s\nuname=6.6 x86_64\nuser=root\nuid=0\nos=nixos\nnix=nix (Nix) 2.24.0\ncurrent-system=%s\n"+
		"profile=system-7-link\ngeneration=system-7-link\ntarget=%[2]s\nlauncher=1\nend=1\n", name, phasetest.Old)
}

// planOf plans one step on each host that the project has.
func planOf(t *testing.T, hosts []string, step func(host string) planned, prepare func(r *phases.Run, fakes map[string]*hosttest.Fake)) (*phases.Plan, error) {
	t.Helper()
	dir := t.TempDir()
	p := &runbooks.Project{Dir: dir, Flake: phasetest.New, Hosts: map[string]*runbooks.Host{}}
	rb := &runbooks.Runbook{Name: "production", Digest: "d"}
	fakes := map[string]*hosttest.Fake{}
	kind := phases.Kind{Name: "switch", Compile: func(_ *phases.Inputs, ph *runbooks.Phase) ([]phases.Step, error) {
		s := step(ph.Switch.Host)
		s.Lane = ph.Switch.Host
		return []phases.Step{s}, nil
	}}
	for _, h := range hosts {
		p.Hosts[h] = &runbooks.Host{Name: h, Address: h, System: h}
		rb.Phases = append(rb.Phases, &runbooks.Phase{Kind: "switch", Name: "switch-" + h, Switch: &runbooks.Switch{Host: h}})
		fakes[h] = hosttest.New(t, h)
		fakes[h].On(hosttest.Prefix("sh", "-s")).Out(facts(h))
	}
	controller := hosttest.New(t, "controller")
	tools := phases.Tools{Controller: controller, Nix: &nix.Nix{Host: controller, Dir: dir}, Agents: phasetest.Agents{}}
	tools.Dial = func(_ context.Context, h *runbooks.Host) (host.Host, error) { return fakes[h.Name], nil }
	r, err := phases.NewRun([]phases.Kind{kind}, p, rb, tools)
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		prepare(r, fakes)
	}
	return r.MakePlan(t.Context(), &phases.Log{})
}

func plain(string) planned { return planned{change: phases.Change{Text: "do it"}} }

func TestPlanSaysWhatWouldHappen(t *testing.T) {
	undo := []agent.Operation{{Op: agent.DoActivate, System: phasetest.Old}}
	p, err := planOf(t, []string{"h1"}, func(string) planned {
		return planned{On: phases.On{Kind: phases.Probe}, change: phases.Change{Text: "activate", Detail: []string{"a"}}, undo: undo}
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := p.Phases[0].Steps[0]
	if s.Key != "switch-h1/step@h1" || s.Class != phases.Probe || s.Text != "activate" || len(s.Undo) != 1 || s.Undo[0].System != phasetest.Old {
		t.Errorf("step %+v", s)
	}
	h := p.Hosts[0]
	if h.From.System != phasetest.Old || h.From.Profile.Generation != 7 || h.Unchanged || p.Nothing || len(p.Digest) != 64 {
		t.Errorf("host %+v, nothing %t, digest %s", h, p.Nothing, p.Digest)
	}
}

// Planning puts no agent on a host and asks for no more than a login may read.
func TestPlanningOnlyReads(t *testing.T) {
	_, err := planOf(t, []string{"h1"}, plain, func(_ *phases.Run, fakes map[string]*hosttest.Fake) {
		t.Cleanup(func() {
			for _, line := range fakes["h1"].Lines() {
				if !strings.HasPrefix(line, "sh -s --") {
					t.Errorf("planning ran %q", line)
				}
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Room matters on /nix and /boot, whatever is snapshotted.
func TestPlanningLooksAtNixAndBoot(t *testing.T) {
	_, err := planOf(t, []string{"h1"}, plain, func(r *phases.Run, fakes map[string]*hosttest.Fake) {
		r.Project.Snapshots = &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/persist": {}, "/nix": {}}}
		t.Cleanup(func() {
			if got := fakes["h1"].Lines()[0]; got != "sh -s -- /boot /nix /persist" {
				t.Errorf("looked with %q", got)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// All that stands in the way is told at once, with every host's hints.
func TestPlanTellsAllMistakesAtOnce(t *testing.T) {
	down := func(name string) error {
		return &host.Error{Kind: host.Timeout, Host: name, Err: errors.New("nothing answers"), Hint: []string{"ping " + name}}
	}
	_, err := planOf(t, []string{"h1", "h2"}, plain, func(r *phases.Run, _ map[string]*hosttest.Fake) {
		r.Dial = func(_ context.Context, h *runbooks.Host) (host.Host, error) { return nil, down(h.Name) }
	})
	f := phases.AsFailure(err)
	if f.Exit != phases.ExitPrecondition || f.Error() != "cannot reach h1: nothing answers\ncannot reach h2: nothing answers" || !slices.Equal(f.Hint, []string{"ping h1", "ping h2"}) {
		t.Errorf("%+v", f)
	}
	_, err = planOf(t, []string{"h1", "h2"}, func(h string) planned {
		return planned{found: []phases.Finding{{Host: h, What: "no Nix", Hint: []string{"install on " + h}}}}
	}, nil)
	f = phases.AsFailure(err)
	if f.Exit != phases.ExitPrecondition || f.Error() != "h1: no Nix\nh2: no Nix" || len(f.Hint) != 2 || f.Safe != "nothing was changed on any host" {
		t.Errorf("%+v", f)
	}
}

func TestPlanFailureIsPlaced(t *testing.T) {
	_, err := planOf(t, []string{"h1"}, func(string) planned { return planned{err: errors.New("does not evaluate")} }, nil)
	f := phases.AsFailure(err)
	if f.Error() != "switch-h1/step on h1: does not evaluate" || f.Exit != phases.ExitFailed || f.Safe != "nothing was changed on any host" {
		t.Errorf("%+v", f)
	}
}

func TestPlanNeedsCompleteFacts(t *testing.T) {
	_, err := planOf(t, []string{"h1"}, plain, func(r *phases.Run, _ map[string]*hosttest.Fake) {
		cut := hosttest.New(t, "h1")
		cut.On(hosttest.Prefix("sh", "-s")).Reply(0, "deployer-facts=1\nhostname=h1\n", "sh: killed")
		r.Dial = func(context.Context, *runbooks.Host) (host.Host, error) { return cut, nil }
	})
	if err == nil || !strings.Contains(err.Error(), "h1: cannot read the host's facts") || !strings.Contains(err.Error(), "sh: killed") {
		t.Errorf("got %v", err)
	}
}

// A plan's digest is bound to what was seen, not to when it was seen.
func TestPlanDigest(t *testing.T) {
	base := func() *phases.Plan {
		return &phases.Plan{Schema: 1, Runbook: "r", Hosts: []phases.PlanHost{{Name: "h1", From: agent.Facts{System: phasetest.Old}, To: phasetest.New}}}
	}
	digest := func(change func(*phases.Plan)) string {
		p := base()
		change(p)
		p.Seal()
		return p.Digest
	}
	same := digest(func(*phases.Plan) {})
	for name, change := range map[string]func(*phases.Plan){
		"space":  func(p *phases.Plan) { p.Hosts[0].From.Space = []agent.Space{{Path: "/nix", Free: 1}} },
		"units":  func(p *phases.Plan) { p.Hosts[0].From.Active = []string{"a.service"} },
		"digest": func(p *phases.Plan) { p.Digest = "old" },
	} {
		if digest(change) != same {
			t.Errorf("the digest depends on %s", name)
		}
	}
	for name, change := range map[string]func(*phases.Plan){
		"from":    func(p *phases.Plan) { p.Hosts[0].From.System = "/nix/store/x" },
		"boot id": func(p *phases.Plan) { p.Hosts[0].From.BootID = "b" },
		"to":      func(p *phases.Plan) { p.Hosts[0].To = "/nix/store/x" },
		"undo": func(p *phases.Plan) {
			p.Phases = []phases.PlanPhase{{Steps: []phases.PlanStep{{Undo: []agent.Operation{{Op: "x"}}}}}}
		},
		"runbook": func(p *phases.Plan) { p.RunbookHash = "x" },
	} {
		if digest(change) == same {
			t.Errorf("the digest does not see %s", name)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	at := runbooks.Pos{File: "r.yaml", Line: 3, Col: 5}
	in := &phases.Inputs{Project: &runbooks.Project{}, Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{{Kind: "edit", Pos: at}}}}
	if _, err := phases.Compile(nil, in); err == nil || err.Error() != `r.yaml:3:5: phase "edit" is not built in this version` {
		t.Errorf("got %v", err)
	}
	bad := phases.Kind{Name: "edit", Compile: func(*phases.Inputs, *runbooks.Phase) ([]phases.Step, error) { return nil, errors.New("is wrong") }}
	if _, err := phases.Compile([]phases.Kind{bad}, in); err == nil || err.Error() != "r.yaml:3:5: is wrong" {
		t.Errorf("got %v", err)
	}
	twice := phases.Kind{Name: "edit", Compile: func(*phases.Inputs, *runbooks.Phase) ([]phases.Step, error) {
		return []phases.Step{planned{}, planned{}}, nil
	}}
	if _, err := phases.Compile([]phases.Kind{twice}, in); err == nil || err.Error() != "r.yaml:3:5: two steps are named /step: give the check another name" {
		t.Errorf("got %v", err)
	}
	lane := phases.Kind{Name: "edit", Compile: func(*phases.Inputs, *runbooks.Phase) ([]phases.Step, error) {
		return []phases.Step{planned{On: phases.On{Lane: "h9"}}}, nil
	}}
	_, err := phases.NewRun([]phases.Kind{lane}, in.Project, in.Runbook, phases.Tools{})
	if f := phases.AsFailure(err); f.Exit != phases.ExitUsage || f.Error() != `host "h9" is not in deployer.yaml` {
		t.Errorf("got %v", err)
	}
}

// An operation id is of one attempt only, however many there are.
func TestOpIsUnique(t *testing.T) {
	seen := map[string]int{}
	for n := 1; n <= 120; n++ {
		op := (&phases.Env{Run: &phases.Run{ID: "r"}, Step: "p/s@h", Attempt: n}).Op()
		if seen[op] > 0 {
			t.Fatalf("attempts %d and %d share %s", seen[op], n, op)
		}
		seen[op] = n
	}
}

// Recall reads the recipe from the host itself, and what the host is now.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		m.Fake.On(hosttest.Prefix("sh", "-s")).Out(facts("h1"))
		r, _ := phasetest.Run(m)
		l := r.Lanes[0]
		conn := l.Host
		r.Dial = func(context.Context, *runbooks.Host) (host.Host, error) { return conn, nil }
		m.With(func(w *phasetest.World) {
			w.Recipe = agent.Recipe{Run: "r0", Before: agent.Facts{System: "/before"}, Operations: []agent.Operation{{Op: agent.DoUnits}}}
			w.Facts.System = "/now"
		})
		if err := r.Recall(t.Context(), l, "r0", &phases.Log{}); err != nil {
			t.Fatal(err)
		}
		if l.Before.System != "/before" || l.Seen.System != "/now" || !l.Changed() {
			t.Errorf("before %s, now %s, %d operations", l.Before.System, l.Seen.System, len(l.Recipe.Operations))
		}
		m.Handle(agent.OpRecipeGet, func(json.RawMessage) (any, error) { return nil, &agent.Error{Code: "not-found", Message: "none"} })
		err := r.Recall(t.Context(), l, "r0", &phases.Log{})
		if f := phases.AsFailure(err); f.Exit != phases.ExitPrecondition || !strings.Contains(f.Error(), "the host has no recipe of run r0: none") {
			t.Errorf("got %v", err)
		}
	})
}

// The agent is put on a host by digest, where it is missing; a launcher only by root.
func TestAgentIsInstalledWhenMissing(t *testing.T) {
	for _, tt := range []struct {
		name, user string
		first      int // exit code of the first start
		stderr     string
		want       []string
		fails      string
	}{
		{"root, nothing there", "root", 127, "", []string{"run", "sh -c", "install", "run"}, ""},
		{"root, launcher there", "root", agent.ExitNotInstalled, "", []string{"run", "sh -c", "install", "run"}, ""},
		{"deploy user", "deploy", agent.ExitNotInstalled, "", []string{"run", "install", "run"}, ""},
		{"sudo finds no launcher", "deploy", 1, "sudo: /nix/var/deployer/agent: command not found", []string{"run", "install", "run"}, ""},
		{"it does not start", "deploy", 1, "Exec format error", []string{"run"}, "(exit code 1: Exec format error)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var did []string
				f := hosttest.New(t, "h1")
				f.LogInAs(tt.user)
				f.On(func(c host.Command) bool { did = append(did, short(c.Args)); return false })
				f.On(hosttest.Prefix(agent.LauncherPath, "run")).Once().Reply(tt.first, "", tt.stderr)
				f.On(hosttest.Prefix(agent.LauncherPath, "install"))
				f.On(hosttest.Prefix("sh", "-c"))
				m := phasetest.Make(t, "h1")
				f.On(hosttest.Prefix(agent.LauncherPath, "run")).Do(m.Serve)
				r, _ := phasetest.Run(m)
				l := r.Lanes[0]
				l.Host = f
				err := l.Call(t.Context(), agent.OpFacts, nil, nil)
				if got := fmt.Sprint(err); !slices.Equal(did, tt.want) || tt.fails == "" && err != nil || !strings.HasSuffix(got, tt.fails) && tt.fails != "" {
					t.Errorf("ran %q, want %q; %v", did, tt.want, err)
				}
				l.Drop()
			})
		})
	}
}

func short(args []string) string {
	if args[0] == agent.LauncherPath {
		return args[1]
	}
	return args[0] + " " + args[1]
}

// An agent with another digest is not the one that was asked for.
func TestAgentMustBeTheOneThatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := hosttest.New(t, "h1")
		f.On(hosttest.Prefix(agent.LauncherPath, "run")).Do(func(_ host.Command, in io.Reader, out io.Writer) host.Result {
			_, _ = bufio.NewReader(in).ReadBytes('\n')
			_, _ = io.WriteString(out, `{"id":1,"result":{"digest":"beef"}}`+"\n")
			_, _ = io.Copy(io.Discard, in)
			return host.Result{}
		})
		m := phasetest.Make(t, "h1")
		r, _ := phasetest.Run(m)
		l := r.Lanes[0]
		l.Host = f
		err := l.Call(t.Context(), agent.OpFacts, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "the agent says it is beef, want cafe") {
			t.Errorf("got %v", err)
		}
		l.Drop()
	})
}

// An agent that says nothing and does not end with its input is given up.
func TestAgentThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, gone := hosttest.New(t, "h1"), make(chan struct{})
		f.On(hosttest.Prefix(agent.LauncherPath, "run")).Do(func(_ host.Command, in io.Reader, _ io.Writer) host.Result {
			for b := make([]byte, 512); ; time.Sleep(time.Second) { // deaf to the end of its input
				if _, err := in.Read(b); errors.Is(err, io.ErrClosedPipe) {
					close(gone)
					return host.Result{Code: 143}
				}
			}
		})
		r, _ := phasetest.Run(phasetest.Make(t, "h1"))
		l := r.Lanes[0]
		l.Host = f
		start := time.Now()
		err := l.Call(t.Context(), agent.OpFacts, nil, nil)
		<-gone
		if d := time.Since(start); err == nil || d < 22*time.Second || d > 24*time.Second {
			t.Errorf("after %s: %v", d, err)
		}
		l.Drop()
	})
}

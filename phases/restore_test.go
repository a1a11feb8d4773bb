package phases_test

import (
	"context"
	"encoding/json"
	"errors"
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
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/state"
)

// once answers an operation by itself one time, then leaves it to the machine.
func once(m *phasetest.Machine, op string, h phasetest.Handler) {
	m.Handle(op, func(args json.RawMessage) (any, error) {
		m.Handle(op, nil)
		return h(args)
	})
}

// The restore is a job of the host: whatever goes on the way, it is asked again.
func TestRestoreIsFollowedOverAnyConnection(t *testing.T) {
	const steps = "a@h1:undo b@h1:fail"
	restored := func(t *testing.T, r *rig) {
		t.Helper()
		if got, o := r.execute(); !strings.HasSuffix(strings.Replace(got, " lock", "", 1), "~a = 20 h1:restored") {
			t.Errorf("got %s (%v)", got, o.Remains)
		}
	}
	for name, break1 := range map[string]func(m *phasetest.Machine){
		"the start is lost": func(m *phasetest.Machine) {
			once(m, agent.OpRestore, func(json.RawMessage) (any, error) { return nil, phasetest.ErrDie })
		},
		"the answer is lost": func(m *phasetest.Machine) {
			once(m, agent.OpRestore, func(args json.RawMessage) (any, error) {
				_, _ = m.Default(agent.OpRestore, args)
				return nil, phasetest.ErrDie
			})
		},
		"it was killed on its way": func(m *phasetest.Machine) {
			once(m, agent.OpRestore, func(json.RawMessage) (any, error) { return agent.Receipt{State: "lost"}, nil })
		},
		"the link is lost while it runs": func(m *phasetest.Machine) {
			once(m, agent.OpRestore, func(args json.RawMessage) (any, error) {
				rec, err := m.Default(agent.OpRestore, args)
				started := rec.(agent.Receipt)
				started.State = "started"
				return started, err
			})
			once(m, agent.OpJobWait, func(json.RawMessage) (any, error) {
				m.Away(errors.New("gone"))
				time.AfterFunc(20*time.Second, func() { m.Away(nil) })
				return nil, phasetest.ErrDie
			})
		},
		"the agent dies over the logs": func(m *phasetest.Machine) {
			once(m, agent.OpExec, func(json.RawMessage) (any, error) { return nil, phasetest.ErrDie })
		},
		"it comes back within the patience": func(m *phasetest.Machine) {
			once(m, agent.OpExec, func(json.RawMessage) (any, error) {
				m.Away(&host.Error{Kind: host.Refused, Err: errors.New("no")})
				time.AfterFunc(25*time.Second, func() { m.Away(nil) })
				return nil, phasetest.ErrDie
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, steps)
				break1(r.machines["h1"])
				restored(t, r)
			})
		})
	}
}

// A restore that reboots the host dies with it, and is asked for again after the
// boot; a host that boots may deny logins for a while.
func TestRestoreThatRebootsIsFollowedIntoTheNextBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo=reboot b@h1:fail")
		m := r.machines["h1"]
		once(m, agent.OpRestore, func(json.RawMessage) (any, error) {
			m.Trace.Add("down")
			m.Away(&host.Error{Kind: host.Timeout, Err: errors.New("no answer")})
			time.AfterFunc(2*time.Minute, func() { m.Away(&host.Error{Kind: host.Denied, Err: errors.New("system is booting up")}) })
			time.AfterFunc(3*time.Minute, func() {
				m.With(func(w *phasetest.World) { w.Facts.BootID = "boot-2" })
				m.Away(nil)
				once(m, agent.OpRestore, func(json.RawMessage) (any, error) {
					return agent.Receipt{State: "lost", BootID: "boot-1"}, nil
				})
			})
			return nil, phasetest.ErrDie
		})
		if got, _ := r.execute(); got != "a b! down lock lock ~a = 20 h1:restored" {
			t.Errorf("got %s", got)
		}
	})
}

// Where the new system was booted, the old one comes back by a reboot: as soon
// as it leads there, and the rest after it.
func TestComposeRebootsBeforeTheRest(t *testing.T) {
	var got []string
	for _, op := range phases.Compose([]agent.Operation{{Op: agent.DoWriteFile}, {Op: agent.DoActivate}, {Op: agent.DoProfile}, {Op: agent.DoBoot}, {Op: agent.DoStart}, {Op: agent.DoData}},
		[]agent.Operation{{Op: agent.DoTrial}, {Op: agent.DoReboot}}) {
		got = append(got, op.Op)
	}
	if want := []string{agent.DoProfile, agent.DoTrial, agent.DoBoot, agent.DoData, agent.DoReboot, agent.DoWriteFile, agent.DoActivate, agent.DoStart}; !slices.Equal(got, want) {
		t.Error(got)
	}
}

// What a rollback restores can be chosen anew, with all else as it was.
func TestChooseReplacesWhatGoesBack(t *testing.T) {
	a, b := agent.Snapshot{UUID: "a", Source: "/a"}, agent.Snapshot{UUID: "b", Source: "/b"}
	l := &phases.Lane{Recipe: agent.Recipe{Operations: phases.Compose([]agent.Operation{{Op: agent.DoActivate}, {Op: agent.DoUnits}}, agent.WayBack([]agent.Snapshot{a}))}}
	for _, c := range []struct {
		to   []agent.Snapshot
		want string
	}{
		{[]agent.Snapshot{b}, "restore-data activate start-stopped units"}, {nil, "activate units"}, {[]agent.Snapshot{a, b}, "restore-data activate start-stopped units"},
	} {
		l.Choose(t.Context(), c.to)
		var got []string
		for _, op := range l.Recipe.Operations {
			got = append(got, op.Op)
		}
		if strings.Join(got, " ") != c.want || l.GoesBack(a) != slices.Contains(sources(c.to), "/a") || l.GoesBack(b) != slices.Contains(sources(c.to), "/b") {
			t.Errorf("%v: %v", c.to, got)
		}
	}
}

// Another root takes a boot: that of a trial, or one of its own.
func TestRootGoesBackByABoot(t *testing.T) {
	root, vm := agent.Snapshot{UUID: "s", ParentUUID: "live", Source: "/", Origin: "root"}, agent.Snapshot{UUID: "v", Source: "/vm", Origin: "root/vm"}
	data := agent.Snapshot{UUID: "d", Source: "/data", Origin: "rooted"}
	before := agent.Facts{BootID: "boot-1", Boot: agent.Boot{System: "/old"}}
	boot := agent.Operation{Op: agent.DoReboot, System: "/old", BootID: "boot-1"}
	live, trial := []agent.Operation{{Op: agent.DoActivate}}, []agent.Operation{{Op: agent.DoTrial}, boot}
	for name, c := range map[string]struct {
		recipe []agent.Operation
		now    string // the uuid of what is mounted at /
		to     []agent.Snapshot
		want   string
	}{
		"restored":                   {live, "live", []agent.Snapshot{root, vm}, "restore-data:/,/vm reboot activate start-stopped"},
		"restored, after a trial":    {trial, "live", []agent.Snapshot{root}, "trial restore-data:/ reboot start-stopped"},
		"not chosen any more":        {phases.WithBoot(agent.WayBack([]agent.Snapshot{root}), before), "live", nil, ""},
		"kept":                       {live, "live", []agent.Snapshot{data}, "restore-data:/data activate start-stopped"},
		"kept, and put away":         {live, "fresh", nil, "restore-data:/:itself reboot activate"},
		"kept, and perhaps put away": {trial, "live", nil, "trial restore-data:/:itself reboot"},
	} {
		m := phasetest.Make(t, "h1")
		m.Handle(agent.OpDiscover, func(json.RawMessage) (any, error) {
			return agent.Discovery{Volumes: []agent.Volume{{UUID: c.now}}}, nil
		})
		l := m.Env().Lane
		l.Recipe = agent.Recipe{Before: before, Snapshots: []agent.Snapshot{root, vm, data}, Operations: phases.Compose(nil, c.recipe)}
		l.Choose(t.Context(), c.to)
		var got []string
		for _, op := range l.Recipe.Operations {
			s := op.Op
			if op.Data != nil {
				s += ":" + strings.Join(sources(op.Data.Snapshots), ",")
				if op.Data.Itself {
					s += ":itself"
				}
			}
			got = append(got, s)
		}
		if strings.Join(got, " ") != c.want || l.GoesBack(root) != (len(c.to) > 0 && c.to[0].Source == "/") {
			t.Errorf("%s: %v", name, got)
		}
	}
	back := agent.WayBack([]agent.Snapshot{root, vm, data})
	for policy, want := range map[string]int{"auto": 3, "ask": 1, "never": 1} {
		if got := phases.Unasked(back, policy, before); len(got[0].Data.Snapshots) != want {
			t.Errorf("%s: %+v", policy, got)
		}
	}
	if got := phases.Unasked(agent.WayBack([]agent.Snapshot{root}), "auto", agent.Facts{}); len(got) != 0 {
		t.Errorf("without a boot loader: %+v", got)
	}
}

func sources(list []agent.Snapshot) (at []string) {
	for _, s := range list {
		at = append(at, s.Source)
	}
	return at
}

// A login that is denied is not tried again: sshd punishes that.
func TestDeniedLoginIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo b@h1:die")
		r.machines["h1"].Fake.Unreachable(&host.Error{Kind: host.Denied, Host: "h1", Err: errors.New("no key fits")})
		start := time.Now()
		got, _ := r.execute()
		if got != "a b! = 31 h1:unknown" || time.Since(start) > time.Second {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
	})
}

// A unit that takes a while to be up again does not make a restore stuck; one
// that stays down does.
func TestVerifyGivesUnitsTime(t *testing.T) {
	for up, want := range map[time.Duration]string{5 * time.Second: "restored", time.Hour: "stuck"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a@h1:undo b@h1:fail")
			l, m := r.run.Lanes[0], r.machines["h1"]
			l.Before.Active = []string{"web.service"}
			timer := time.AfterFunc(up, func() {
				m.With(func(w *phasetest.World) { w.Facts.Active = []string{"web.service"} })
			})
			defer timer.Stop()
			if _, o := r.execute(); string(o.Lanes["h1"]) != want {
				t.Errorf("up after %s: %s, want %s", up, o.Lanes["h1"], want)
			}
		})
	}
}

// A restore that went well, on a host that is out of reach since, is not one that
// failed.
func TestRestoreThatCannotBeLookedAtIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo b@h1:fail")
		m := r.machines["h1"]
		once(m, agent.OpRestore, func(args json.RawMessage) (any, error) {
			m.Away(&host.Error{Kind: host.Refused, Err: errors.New("no")})
			return m.Default(agent.OpRestore, args)
		})
		if got, _ := r.execute(); !strings.HasSuffix(got, "~a = 31 h1:unknown") {
			t.Errorf("got %s", got)
		}
	})
}

// A restore that the host lost track of, or refuses, needs a person.
func TestRestoreThatDoesNotEndIsStuck(t *testing.T) {
	for name, h := range map[string]phasetest.Handler{
		"half done, though it looks as before": func(json.RawMessage) (any, error) {
			return agent.Receipt{State: "ended", Code: 1}, nil
		},
		"lost":    func(json.RawMessage) (any, error) { return agent.Receipt{State: "lost"}, nil },
		"refused": func(json.RawMessage) (any, error) { return nil, &agent.Error{Code: "not-found", Message: "no recipe"} },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a@h1:undo b@h1:fail")
			r.machines["h1"].Handle(agent.OpRestore, h)
			got, o := r.execute()
			if got != "a b! = 30 h1:stuck" || !slices.Equal(o.Remains, []string{"# on h1, as root:", "less /nix/var/deployer/runs/r1/RESTORE.txt"}) {
				t.Errorf("%s: got %s, %q", name, got, o.Remains)
			}
		})
	}
}

// What the failed system said is kept before it goes.
func TestRestoreKeepsTheHostsJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo b@h1:fail")
		r.machines["h1"].Handle(agent.OpExec, func(json.RawMessage) (any, error) {
			return agent.ExecResult{Stdout: []byte("one\ntwo\n")}, nil
		})
		r.execute()
		b, err := os.ReadFile(filepath.Join(r.run.Dir.OutputDir(), "h1-journal.log"))
		if string(b) != "one\ntwo\n" {
			t.Errorf("kept %q, %v", b, err)
		}
	})
}

// rollback is a run that undoes r0 on the rig's machines, each with a recipe.
func rollback(t *testing.T, hosts ...string) *rig {
	steps := make([]string, len(hosts))
	for i, h := range hosts {
		steps[i] = "never@" + h
	}
	r := newRig(t, strings.Join(steps, " "))
	r.run.ID, r.run.Type, r.run.Undoes = "r2", "rollback", "r0"
	r.runner.Log.Run = "r2"
	for _, l := range r.run.Lanes {
		m := r.machines[l.Name]
		m.With(func(w *phasetest.World) {
			w.Recipe = agent.Recipe{Run: "r0", Host: l.Name, Before: w.Facts, Operations: []agent.Operation{
				{Op: agent.DoActivate, Name: l.Name + "-activate", System: phasetest.Old},
				{Op: agent.DoProfile, Name: l.Name + "-profile", System: phasetest.Old, Generation: 7},
			}}
			l.Recipe, l.Before = w.Recipe, w.Facts
			w.Facts.System, w.Facts.Profile.System, w.Facts.Profile.Generation = phasetest.New, phasetest.New, 8
			l.Seen = w.Facts // as Recall looked
		})
		l.Locked = false
	}
	return r
}

func (r *rig) restore() (string, *phases.Outcome) {
	o := r.runner.Restore(r.ctx)
	return r.told(o), o
}

func TestRollback(t *testing.T) {
	away := &host.Error{Kind: host.Timeout, Host: "h2", Err: errors.New("nothing answers")}
	for _, tt := range []struct {
		name, want string
		prepare    func(r *rig)
	}{
		{"goes back, the last host first", "lock lock ~h2-activate ~h2-profile ~h1-activate ~h1-profile = 0 h1:restored h2:restored", func(*rig) {}},
		{"one is stuck", "lock lock ~h2-activate! ~h2-profile ~h1-activate ~h1-profile = 30 h1:restored h2:stuck", func(r *rig) {
			r.machines["h2"].With(func(w *phasetest.World) { w.Broken["h2-activate"] = true })
		}},
		{"one goes away", "lock lock ~h1-activate ~h1-profile = 31 h1:restored h2:unknown", func(r *rig) {
			r.machines["h1"].Handle(agent.OpLock, func(args json.RawMessage) (any, error) {
				r.machines["h2"].Away(away)
				return r.machines["h1"].Default(agent.OpLock, args)
			})
		}},
		{"somebody changed it after the question: nothing is changed", "lock unlock = 5 h1:untouched h2:untouched", func(r *rig) {
			r.machines["h2"].With(func(w *phasetest.World) { w.Facts.System = phasetest.Old })
		}},
		{"one is locked: nothing is changed anywhere", "lock unlock = 4 h1:untouched h2:untouched", func(r *rig) {
			r.machines["h1"].Handle(agent.OpLock, func(json.RawMessage) (any, error) {
				return nil, &agent.Error{Code: "locked", Message: "this host is locked by you"}
			})
		}},
		{"it was never seen before what it went to", "lock lock ~h2-activate ~h2-profile ~h1-activate ~h1-profile = 30 h1:restored h2:stuck", func(r *rig) {
			r.run.LaneOf("h2").Before.Boot.Default = "nixos-generation-6.conf"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rollback(t, "h1", "h2")
				tt.prepare(r)
				if got, o := r.restore(); got != tt.want || (o.Exit == 0) != (o.Failure == nil) {
					t.Errorf("got %s\nwant %s\n%v", got, tt.want, o.Failure)
				}
			})
		})
	}
}

// Another choice of data, of a host that goes back already, was refused as if that
// host had not been changed.
func TestARollbackThatIsUnderWayCannotBeChosenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rollback(t, "h1")
		l := r.run.Lanes[0]
		l.Recipe.Snapshots = []agent.Snapshot{{UUID: "d", Source: "/data"}}
		l.Choose(r.ctx, l.Recipe.Snapshots)
		r.machines["h1"].Handle(agent.OpRecipePut, func(json.RawMessage) (any, error) {
			return nil, &agent.Error{Code: agent.Restoring, Message: "run r0 is being undone on this host: decided by the controller"}
		})
		_, o := r.restore()
		if f := o.Failure; o.Exit != phases.ExitRefused || f.Safe != "" || !strings.HasPrefix(strings.Join(f.Hint, ""), "deployer rollback r0 ") {
			t.Errorf("exit %d, %+v", o.Exit, f)
		}
	})
}

// Promise 6: a rollback waits for nothing and nobody: no window, no signature,
// no journal; and it closes the run that it undoes.
func TestPromise06RollbackIsNeverGated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rollback(t, "h1")
		r.run.Phases = append(r.run.Phases, phases.Compiled{Name: "window", Steps: []phases.Step{r.step("closed:wait=99")}})
		r.run.Ask = nil // whoever asks, panics
		r.journal.breaks = func(state.Record) bool { return true }
		start := time.Now()
		got, _ := r.restore()
		if got != "lock ~h1-activate ~h1-profile = 0 h1:restored" || time.Since(start) > time.Second {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
		if w := r.machines["h1"].World(); w.Closed != "restored" || w.Facts.System != phasetest.Old {
			t.Errorf("closed as %q, runs %s", w.Closed, w.Facts.System)
		}
	})
}

// Promise 6, in a run: what failed goes back at once, although a window that
// comes later is closed and the journal cannot be written.
func TestPromise06FailedRunGoesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo b@h1:fail closed:wait=99")
		r.journal.breaks = func(rec state.Record) bool {
			return rec.Kind == state.RunState && strings.Contains(string(rec.Data), "restoring")
		}
		start := time.Now()
		if got, _ := r.execute(); got != "a b! ~a = 20 h1:restored" || time.Since(start) > time.Second {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
	})
}

// Promise 11: however a run went back, it is not exit 0; and what is told to
// others about it cannot fail it.
func TestPromise11RolledBackIsNeverExitZero(t *testing.T) {
	for _, tt := range sequences {
		if strings.Contains(tt.want, "restored") && strings.Contains(tt.want, "= 0") {
			t.Errorf("%s: %s", tt.name, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo")
		told := 0
		r.runner.Finish = func(context.Context, *phases.Outcome) { told++ }
		if got, _ := r.execute(); got != "a = 0 h1:committed" || told != 1 {
			t.Errorf("got %s, told %d times", got, told)
		}
	})
}

func TestDifferences(t *testing.T) {
	was := agent.Facts{
		System: "/s/old", Booted: "/s/older", Profile: agent.Profile{System: "/s/old", Generation: 7}, Boot: agent.Boot{Default: "7.conf", System: "/s/old"},
		Files: map[string]string{"/etc/a": "d1"}, Active: []string{"web.service", "user@1000.service", "session-3.scope", "run-x.timer", "sshd@2.service", "dev-loop3.mount"}, Failed: []string{"bad.service"},
	}
	for _, tt := range []struct {
		name   string
		change func(f *agent.Facts)
		want   []string
	}{
		{"the same", func(*agent.Facts) {}, nil},
		{"what changes by itself", func(f *agent.Facts) {
			f.BootID, f.Time, f.Active, f.Space = "other", time.Now(), []string{"web.service", "new.service"}, []agent.Space{{Path: "/"}}
		}, nil},
		{"the running system", func(f *agent.Facts) { f.System = "/s/new" }, []string{"the running system is /s/new, was /s/old"}},
		{"the profile", func(f *agent.Facts) { f.Profile = agent.Profile{System: "/s/new", Generation: 8} },
			[]string{"the profile's system is /s/new, was /s/old", "the profile's generation is 8, was 7"}},
		{"the boot default", func(f *agent.Facts) { f.Boot = agent.Boot{Default: "8.conf", System: "/s/new"} },
			[]string{"the boot default is 8.conf, was 7.conf", "the boot default's system is /s/new, was /s/old"}},
		{"a file", func(f *agent.Facts) { f.Files = map[string]string{"/etc/a": "d2"} }, []string{"/etc/a is d2, was d1"}},
		{"a unit is down", func(f *agent.Facts) { f.Active = nil }, []string{"web.service is not active"}},
		{"a unit has failed", func(f *agent.Facts) { f.Failed = []string{"bad.service", "web.service"} }, []string{"web.service has failed"}},
		{"it failed before", func(f *agent.Facts) { f.Failed = []string{"bad.service"} }, nil},
		{"it does not fail any more", func(f *agent.Facts) { f.Failed = nil }, nil},
		{"what was booted", func(f *agent.Facts) { f.BootID, f.Booted = "other", "/s/new" }, []string{"what was booted is /s/new, was /s/old"}},
		{"it booted its default", func(f *agent.Facts) { f.BootID, f.Booted = "other", "/s/old" }, nil},
		{"our own jobs", func(f *agent.Facts) { f.Failed = []string{"deployer-r1-test-1.service"} }, nil},
	} {
		now := was
		tt.change(&now)
		if got := phases.Differences(was, now); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The exit codes: how the lanes ended, and whether the operator asked for it.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		lanes   string
		aborted bool
		status  state.Status
		exit    int
	}{
		{"restored", false, state.RolledBack, 20},
		{"restored restored", false, state.RolledBack, 20},
		{"restored", true, state.RolledBack, 22},
		{"restored unknown", false, state.OutOfReach, 31},
		{"unknown", true, state.OutOfReach, 31},
		{"restored stuck", false, state.Stuck, 30},
		{"unknown stuck restored", true, state.Stuck, 30},
	} {
		var lanes []*phases.Lane
		for s := range strings.FieldsSeq(tt.lanes) {
			lanes = append(lanes, &phases.Lane{Status: state.Status(s)})
		}
		if status, exit := phases.JudgeRun(lanes, tt.aborted); status != tt.status || exit != tt.exit {
			t.Errorf("%s, aborted %t: %s %d, want %s %d", tt.lanes, tt.aborted, status, exit, tt.status, tt.exit)
		}
	}
}

func TestRefuse(t *testing.T) {
	if err := phases.Refuse(nil); err != nil {
		t.Errorf("nothing found: %v", err)
	}
	x := phases.Finding{Host: "h1", What: "no Nix", Hint: []string{"install it"}}
	err := phases.Refuse([]phases.Finding{x, x, {What: "a file"}})
	f := phases.AsFailure(err)
	if f.Exit != phases.ExitPrecondition || err.Error() != "h1: no Nix\na file" || !slices.Equal(f.Hint, []string{"install it"}) || f.Safe == "" {
		t.Errorf("%+v", f)
	}
}

// A restore of data that changed nothing left its host stuck, and blocked.
func TestRestoreOfDataThatChangedNothingIsNotStuck(t *testing.T) {
	busy := agent.Outcome{State: "failed", Intact: true, Message: "process 7 uses it"}
	for _, tt := range []struct {
		want    string
		results []agent.Outcome
	}{
		{"lock = 1 h1:untouched", []agent.Outcome{busy, {State: "already"}}},
		{"lock = 30 h1:stuck", []agent.Outcome{{State: "failed", Message: "and it could not be taken back"}, {State: "already"}}},
		{"lock = 30 h1:stuck", []agent.Outcome{busy, {State: "done"}}},
		{"lock = 30 h1:stuck", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := rollback(t, "h1")
			l, m := r.run.Lanes[0], r.machines["h1"]
			r.run.Undoes, l.Seen = "", l.Before
			m.With(func(w *phasetest.World) { w.Facts = l.Before })
			l.GoBackTo([]agent.Snapshot{{UUID: "0123456789", Source: "/data"}}, nil)
			m.Handle(agent.OpRestore, func(json.RawMessage) (any, error) {
				return agent.Receipt{State: "ended", Code: 1, Result: tt.results}, nil
			})
			got, o := r.restore()
			if got != tt.want || m.World().Closed != string(o.Lanes["h1"]) {
				t.Errorf("got %s, want %s; closed as %s", got, tt.want, m.World().Closed)
			}
			if again := "deployer snapshots restore h1 01234567"; o.Exit == 1 && (o.Failure.Err.Error() != busy.Message || !strings.HasPrefix(o.Failure.Hint[0], again)) {
				t.Errorf("%+v", o.Failure)
			}
		})
	}
}

// Resuming a restore of data made a second run, which said that it undid the first.
func TestRestoreOfDataGoesOnInItsOwnRun(t *testing.T) {
	for want, put := range map[string]bool{"lock ~restore-data ~start-stopped = 0 h1:restored": true, "lock = 1 h1:untouched": false} {
		synctest.Test(t, func(t *testing.T) {
			r := rollback(t, "h1")
			l, m := r.run.Lanes[0], r.machines["h1"]
			r.run.Undoes, l.Recipe = "", agent.Recipe{}
			m.With(func(w *phasetest.World) {
				w.Facts, w.Recipe = l.Before, agent.Recipe{}
				if put {
					w.Recipe = agent.Recipe{Run: "r2", Before: l.Before, Operations: agent.WayBack([]agent.Snapshot{{UUID: "0123456789", Source: "/data"}})}
				}
			})
			if err := r.run.Seize(r.ctx, r.runner.Log, 0, false); err != nil {
				t.Fatal(err)
			}
			o := r.runner.RestoreAgain(r.ctx)
			if got := r.told(o); got != want || (o.Exit == 0) != (o.Failure == nil) {
				t.Errorf("got %s, want %s: %v", got, want, o.Failure)
			}
		})
	}
}

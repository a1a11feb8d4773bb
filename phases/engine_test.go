package phases_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// The language is explained at rig.
var sequences = []struct{ name, steps, want string }{
	{"all goes well", "a b@h1:undo c@h1", "a b c = 0 h1:committed"},
	{"nothing to undo", "a@h1 b@h1", "a b = 0 h1:untouched"},
	{"no steps", "", "= 0"},

	{"fails before any change", "a@h1 b@h1:fail c@h1", "a b! = 1 h1:untouched"},
	{"what failed is undone too", "a@h1:undo,fail b@h1", "a! ~a = 20 h1:restored"},
	{"undo is the reverse of do", "a@h1:undo b@h1:undo c@h1:undo d@h1:fail", "a b c d! ~c ~b ~a = 20 h1:restored"},
	{"what runs first, the boot default last", "a@h1:undo=set-boot b@h1:undo=set-profile c@h1:undo=activate d@h1:undo=stop-job e@h1:fail", "a b c d e! ~d ~c ~b ~a = 20 h1:restored"},
	{"the controller's failure restores the hosts", "a@h1:undo b:fail", "a b! ~a = 20 h1:restored"},

	{"a skip is a result", "a@h1:undo b@h1:skip c@h1:needless d@h1", "a b- d = 0 h1:committed"},
	{"not needed has no undo", "a@h1:undo,needless b@h1:fail", "b! = 1 h1:untouched"},
	{"again when it asks for it", "a@h1:undo,retry=2 b@h1", "a? a? a b = 0 h1:committed"},
	{"waits, then goes on", "a@h1:undo b:wait=3 c@h1", "a b? b? b? b c = 0 h1:committed"},
	{"fails after trying again", "a@h1:undo b@h1:retry=1 c@h1:fail", "a b? b c! ~a = 20 h1:restored"},

	{"lanes go back in reverse", "a@h1:undo b@h2:undo c@h3:undo d@h2:fail", "a b c d! ~c ~b ~a = 20 h1:restored h2:restored h3:restored"},
	{"an untouched lane stays so", "a@h1:undo b@h2 c@h3:undo d@h2:fail", "a b c d! ~c ~a = 20 h1:restored h2:untouched h3:restored"},
	{"a lane not reached yet", "a@h1:undo b@h1:fail c@h2:undo", "a b! ~a = 20 h1:restored h2:untouched"},

	{"the link is lost, before any change", "a@h1:cut", "a! lock = 1 h1:untouched"},
	{"the link is lost: restored over a new one", "a@h1:undo b@h1:cut", "a b! lock ~a = 20 h1:restored"},
	{"the agent is killed: restored by another", "a@h1:undo b@h1:die", "a b! lock ~a = 20 h1:restored"},
	{"a look outlives the link", "a@h1:undo b@h1:blink=1 c@h1", "a lock b c = 0 h1:committed"},
	{"a look that ends the link each time", "a@h1:undo b@h1:blink=9", "a lock lock b! lock ~a = 20 h1:restored"},
	{"a host that booted is not what was to be changed", "a@h1:undo b@h1:boots c@h1", "a lock b! ~a = 20 h1:restored"},
	{"out of reach in the restore", "a@h1:undo b@h1:away", "a b! = 31 h1:unknown"},
	{"out of reach, the others go back", "a@h1:undo b@h2:undo c@h2:away", "a b c! ~a = 31 h1:restored h2:unknown"},

	{"stopped after a step", "a@h1:undo,stop b@h1", "a = 130 h1:changing"},
	{"stopped before any change", "a@h1:stop b@h1:undo", "a = 130 h1:untouched"},
	{"stopped in a wait", "a@h1:undo b:stoplater,wait=9 c@h1", "a b? = 130 h1:changing"},
	{"stopped between two attempts", "a@h1:undo b:stoplater,retry=9", "a b? b? b? = 130 h1:changing"},
	{"stopped in a wait before any change", "a@h1 b:stoplater,wait=9", "a b? = 130 h1:untouched"},
	{"stopped twice: the step is ended", "a@h1:undo b@h1:cancel c@h1", "a b! ~a = 22 h1:restored"},
	{"stopped too late", "a@h1:undo b@h1:stop", "a b = 0 h1:committed"},

	{"an undo that fails is stuck", "a@h1:undo,stuck b@h1:undo c@h1:fail", "a b c! ~b ~a! = 30 h1:stuck"},
	{"stuck, the others go back", "a@h1:undo b@h2:undo,stuck c@h1:fail", "a b c! ~b! ~a = 30 h1:restored h2:stuck"},
	{"stuck outweighs out of reach", "a@h1:undo,stuck b@h2:undo c@h2:away", "a b c! ~a! = 30 h1:stuck h2:unknown"},
	{"stuck outweighs stopped", "a@h1:undo,stuck b@h1:cancel", "a b! ~a! = 30 h1:stuck"},

	{"no intent, no effect", "a@h1:nointent,undo", "= 1 h1:untouched"},
	{"the journal breaks: forward stops, the restore goes on", "a@h1:undo b@h1:nointent c@h1", "a ~a = 20 h1:restored"},
	{"the journal breaks after an effect", "a@h1:undo b@h1:nodone,undo c@h1", "a b ~b ~a = 20 h1:restored"},
	{"no stored undo, no effect", "a@h1:undo,nostore b@h1", "= 1 h1:untouched"},
	{"no stored undo, what was before goes back", "a@h1:undo b@h1:undo,nostore", "a ~a = 20 h1:restored"},

	{"a bug in a step is a failure of it", "a@h1:undo b@h1:undo,panic c@h1", "a b ~b ~a = 20 h1:restored"},
	{"a bug before any change", "a:panic", "a = 1"},
}

func TestSequences(t *testing.T) {
	for _, tt := range sequences {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tt.steps)
				if got, o := r.execute(); got != tt.want {
					t.Errorf("%s\n got %s\nwant %s\nfailure: %v", tt.steps, got, tt.want, o.Failure)
				}
				checkJournal(t, r)
			})
		})
	}
}

// checkJournal: as long as the process lives, an intent has an outcome.
func checkJournal(t interface{ Errorf(string, ...any) }, r *rig) {
	if r.journal.broken != nil {
		return
	}
	open := map[string]bool{}
	for _, rec := range r.journal.records() {
		switch rec.Kind {
		case state.StepIntent:
			open[rec.Step] = true
		case state.StepDone, state.StepFailed, state.StepSkipped, state.StepWaiting, state.StepRetry:
			delete(open, rec.Step)
		}
	}
	for s := range open {
		t.Errorf("%s has an intent and no outcome", s)
	}
	if f := state.Fold(r.journal.records()); len(f.InDoubt(false)) > 0 {
		t.Errorf("in doubt although the process lived: %+v", f.InDoubt(false))
	}
}

func TestWaitsAreAsLongAsTheyAsk(t *testing.T) {
	for steps, want := range map[string]time.Duration{
		"a:retry=3": 15 * time.Second, "a:wait=2": 2 * time.Minute, "a:wait=9,stoplater": 12 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			newRig(t, steps).execute()
			if got := time.Since(start); got != want {
				t.Errorf("%s took %s, want %s", steps, got, want)
			}
		})
	}
}

// A failure says where, keeps the hints of the host's agent, and what is safe.
func TestFailureIsPlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, o := newRig(t, "a@h1:undo,nostore").execute()
		f := o.Failure
		if f.Phase != "p" || f.Step != "a" || f.Host != "h1" || f.Safe != "nothing was changed on any host" {
			t.Errorf("placed as %+v", f)
		}
		if want := "p/a on h1: cannot store the undo on the host, so a was not started: no room for the recipe"; f.Error() != want {
			t.Errorf("says %q, want %q", f.Error(), want)
		}
		if !slices.Equal(f.Hint, []string{"make room"}) {
			t.Errorf("hints %q", f.Hint)
		}
	})
}

// What remains for a person is in the outcome, to be typed.
func TestRemains(t *testing.T) {
	for steps, want := range map[string]string{
		"a@h1:undo,stuck b@h1:fail":                       "# on h1, as root:|mend a",
		"a@h1:undo b@h1:away":                             "# h1 is old after a reboot: its boot default was not touched",
		"a@h1:undo=activate b@h1:away":                    "# h1 is old after a reboot: its boot default was not touched",
		"a@h1:undo=set-profile b@h1:away":                 "# h1 may boot the new system: at its console, follow /nix/var/deployer/runs/r1/RESTORE.txt",
		"a@h1:undo=activate b@h1:undo=set-boot c@h1:away": "# h1 may boot the new system: at its console",
		"a@h1:undo,stuck b@h2:undo,stuck c@h2:fail d@h1":  "# on h2, as root:|mend b|# on h1, as root:|mend a",
		"a@h1:undo b@h1:fail":                             "",
	} {
		synctest.Test(t, func(t *testing.T) {
			_, o := newRig(t, steps).execute()
			if got := strings.Join(o.Remains, "|"); !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s leaves %q, want %q", steps, got, want)
			}
		})
	}
}

// A full disk's ballast is for the restore: forward work stops.
func TestFullJournalStopsForwardWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo b@h1")
		r.journal.breaks = func(rec state.Record) bool {
			r.journal.full = rec.Kind == state.StepDone || r.journal.full
			return false
		}
		if got, _ := r.execute(); got != "a ~a = 20 h1:restored" {
			t.Errorf("got %s", got)
		}
	})
}

func TestAlertsAreExit26(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1:undo")
		r.run.Alerts = []string{"h1: disk: 95 %"}
		got, o := r.execute()
		if got != "a = 26 h1:committed" || o.Status != state.Succeeded || !slices.Equal(o.Failure.Output, r.run.Alerts) || !slices.Equal(o.Failure.Hint, []string{"deployer rollback r1"}) {
			t.Errorf("got %s, %s, %+v", got, o.Status, o.Failure)
		}
	})
}

// The hosts' own lanes are closed as they ended; one that nothing was done to is not.
func TestLanesAreClosedOnTheirHosts(t *testing.T) {
	for steps, want := range map[string]string{
		"a@h1:undo": "committed", "a@h1:undo b@h1:fail": "restored", "a@h1:undo,stuck b@h1:fail": "stuck", "a@h1 b@h1:fail": "untouched", "a@h1 b@h1:fail,unlocked": "",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, steps)
			l := r.run.Lanes[0]
			if l.Locked = !strings.Contains(steps, "unlocked"); l.Locked {
				_ = l.Call(t.Context(), agent.OpFacts, nil, nil) // as the lock step did
			}
			r.execute()
			if got := r.machines["h1"].World().Closed; got != want {
				t.Errorf("%s: closed as %q, want %q", steps, got, want)
			}
		})
	}
}

func TestOutcomeSaysWhatRuns(t *testing.T) {
	for steps, want := range map[string]string{
		"a@h1:undo": "new", "a@h1:undo b@h1:fail": "old", "a@h1": "old", "a@h1:undo,stuck b@h1:fail": "", "a@h1:undo b@h1:away": "",
	} {
		synctest.Test(t, func(t *testing.T) {
			_, o := newRig(t, steps).execute()
			got := o.Systems["h1"]
			if got = got[strings.LastIndexByte(got, '-')+1:]; got != want {
				t.Errorf("%s: h1 runs %q, want %q", steps, got, want)
			}
		})
	}
}

// A lane is changing from the moment that its undo lies on its host; so is the run.
func TestWhereLanesAndTheRunAre(t *testing.T) {
	for steps, want := range map[string]string{
		"a@h1 b@h1:undo c@h1:undo":    "run:preparing h1:changing run:changing h1:committed",
		"a@h1 b@h1:undo c@h1:fail":    "run:preparing h1:changing run:changing run:restoring h1:restoring h1:restored",
		"a@h1 b@h1:fail":              "run:preparing h1:untouched",
		"a@h1:undo,stuck b@h1:fail":   "run:preparing h1:changing run:changing run:restoring h1:restoring h1:stuck",
		"a@h1:undo b@h2:undo b2:fail": "run:preparing h1:changing run:changing h2:changing run:changing run:restoring h2:restoring h2:restored h1:restoring h1:restored",
		"a@h1:undo,nostore":           "run:preparing h1:untouched",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, steps)
			r.execute()
			var got []string
			for _, rec := range r.journal.records() {
				var m state.Moved
				if rec.Kind != state.RunState && rec.Kind != state.LaneState || json.Unmarshal(rec.Data, &m) != nil {
					continue
				}
				got = append(got, cmp.Or(rec.Host, "run")+":"+string(m.To))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %s\nwant %s", steps, strings.Join(got, " "), want)
			}
		})
	}
}

package phases_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// TestRetainGoesByOutcome has a host's runs as a line, the oldest first: `6c2`
// is one of 6 days ago that was committed and left two snapshots; r went back,
// o is open, s is stuck, l was released, - is unknown to the host, x is one of no record.
func TestRetainGoesByOutcome(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	keep := runbooks.Keep{GoodRuns: 2, FailedDays: 10, Most: 4}
	for _, tt := range []struct{ name, runs, kept, spare, released string }{
		{"the last good runs", "400c1 300c2 200c2 100c1", "200c2 100c1", "200c2", "300c2 400c1"},
		{"failed ones for some days", "90c1 30r2 11r1 9r2 1-1", "90c1 9r2 1-1", "9r2 1-1", ""},
		{"one that was undone is not good", "90c1 80r1 70c1 60r1", "90c1 70c1", "90c1", ""},
		{"what is open", "400o2 300s1 2c1 1c1 0c1", "400o2 300s1 1c1 0c1", "1c1", "2c1"},
		{"no more than so many", "9c1 6r1 5r1 4r1 3r1 2r1", "9c1 5r1 4r1 3r1 2r1", "5r1 4r1 3r1 2r1", ""},
		{"of an open run, however many", "90o1 6r1 5r1 4r1 3r1 2r1", "90o1 5r1 4r1 3r1 2r1", "5r1 4r1 3r1 2r1", ""},
		{"of a run that was released", "9l1 8c1 7c1", "8c1 7c1", "8c1", ""},
		{"of no record", "400x1", "400x1", "", ""},
		{"nothing", "", "", "", ""},
	} {
		var list []agent.Snapshot
		var lanes []agent.Lane
		for i, run := range strings.Fields(tt.runs) {
			var days, count int
			var how rune
			fmt.Sscanf(run, "%d%c%d", &days, &how, &count)
			id := fmt.Sprintf("%03d-%s", i, run)
			for range count {
				list = append(list, agent.Snapshot{Run: id, Created: now.Add(-time.Duration(days) * 24 * time.Hour), Recorded: how != 'x'})
			}
			l := agent.Lane{Run: id, Recipe: true}
			if how := map[rune]string{'c': "committed", 'r': "restored", 's': "stuck", 'l': "released"}[how]; how != "" {
				l.Closing = &agent.Closing{Outcome: how}
			}
			if how != '-' && how != 'x' {
				lanes = append(lanes, l)
			}
		}
		slices.Reverse(list)
		verdicts, released := phases.Retain(list, lanes, keep, now)
		runs := func(which func(phases.Kept) bool) string {
			var names []string
			for _, k := range verdicts {
				if _, name, _ := strings.Cut(k.Run, "-"); which(k) && !slices.Contains(names, name) {
					names = append(names, name)
				}
				if k.Why == "" || len(verdicts) != len(list) {
					t.Errorf("%s: %+v", tt.name, k)
				}
			}
			return strings.Join(names, " ")
		}
		if got := runs(func(k phases.Kept) bool { return k.Keep }); got != tt.kept {
			t.Errorf("%s: kept %q, want %q", tt.name, got, tt.kept)
		}
		if got := runs(func(k phases.Kept) bool { return k.Spare }); got != tt.spare {
			t.Errorf("%s: of these %q could go for space, want %q", tt.name, got, tt.spare)
		}
		for i := range released {
			_, released[i], _ = strings.Cut(released[i], "-")
		}
		if got := strings.Join(released, " "); got != tt.released {
			t.Errorf("%s: released %q, want %q", tt.name, got, tt.released)
		}
	}
}

// A run whose snapshots went because there were too many could be undone as if
// they were there: its old system came up on new data.
func TestARunIsReleasedBeforeAnyOfItsSnapshotsGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1")
		r.run.Project.Snapshots = &runbooks.Snapshots{Keep: &runbooks.Keep{GoodRuns: 9, Most: 1}}
		l, m, trace := r.run.Lanes[0], r.machines["h1"], []string{}
		l.Locked = false
		m.Handle(agent.OpSnapshots, func(json.RawMessage) (any, error) {
			return []agent.Snapshot{{Run: "r1", UUID: "u1", Recorded: true}, {Run: "r2", UUID: "u2", Recorded: true, Created: time.Now()}}, nil
		})
		m.Handle(agent.OpLanes, func(json.RawMessage) (any, error) {
			done := &agent.Closing{Outcome: "committed"}
			return []agent.Lane{{Run: "r1", Recipe: true, Closing: done}, {Run: "r2", Recipe: true, Closing: done}}, nil
		})
		m.Handle(agent.OpClose, func(args json.RawMessage) (any, error) {
			var c agent.Closing
			_ = json.Unmarshal(args, &c)
			trace = append(trace, c.Run+" "+c.Outcome)
			return c, nil
		})
		m.Handle(agent.OpDelete, func(args json.RawMessage) (any, error) {
			var d agent.DeleteArgs
			_ = json.Unmarshal(args, &d)
			for _, s := range d.Snapshots {
				trace = append(trace, "delete "+s.UUID)
			}
			return []agent.Deleted{{UUID: "u1", State: "freed"}}, nil
		})
		kept, err := r.run.Prune(t.Context(), l, false)
		if err != nil || kept[0].State != "freed" || !kept[1].Keep {
			t.Errorf("%v, %+v", err, kept)
		}
		if got := strings.Join(trace, ", "); got != "r1 released, delete u1" {
			t.Errorf("it did %s", got)
		}
	})
}

// While the cleaner worked on the first set, all others went for the same lack of space.
func TestNoMoreGoesWhileTheCleanerWorks(t *testing.T) {
	for state, want := range map[string]string{"later": "u1", "freed": "u1 u2 u3"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a@h1")
			l, m, deleted := r.run.Lanes[0], r.machines["h1"], []string{}
			l.Locked = false
			m.Handle(agent.OpSnapshots, func(json.RawMessage) (any, error) {
				var list []agent.Snapshot
				for i, id := range []string{"u1", "u2", "u3"} {
					list = append(list, agent.Snapshot{Run: "r" + id, UUID: id, FSID: "fs", Recorded: true, Created: time.Now().Add(time.Duration(i-3) * time.Hour)})
				}
				return list, nil
			})
			m.Handle(agent.OpLanes, func(json.RawMessage) (any, error) { return []agent.Lane{}, nil })
			m.Handle(agent.OpDiscover, func(json.RawMessage) (any, error) {
				return agent.Discovery{Filesystems: []agent.Filesystem{{FSID: "fs", Device: "/dev/x", Total: 100 << 30}}}, nil
			})
			m.Handle(agent.OpDelete, func(args json.RawMessage) (any, error) {
				var d agent.DeleteArgs
				_ = json.Unmarshal(args, &d)
				var list []agent.Deleted
				for _, s := range d.Snapshots {
					deleted, list = append(deleted, s.UUID), append(list, agent.Deleted{UUID: s.UUID, State: state})
				}
				return list, nil
			})
			kept, err := r.run.Prune(t.Context(), l, false)
			if got := strings.Join(deleted, " "); err != nil || got != want {
				t.Errorf("%s: %v, deleted %s, want %s", state, err, got, want)
			}
			if again := strings.Contains(kept[0].Why, "run prune again"); again != (state == "later") {
				t.Errorf("%s: %s", state, kept[0].Why)
			}
		})
	}
}

// It said that what a backup holds goes, and then it stayed.
func TestADryPruneAsksTheHostWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a@h1")
		m := r.machines["h1"]
		m.Handle(agent.OpSnapshots, func(json.RawMessage) (any, error) {
			return []agent.Snapshot{{Run: "backup", UUID: "u1", Recorded: true}, {Run: "r2", UUID: "u2", Recorded: true}}, nil
		})
		m.Handle(agent.OpLanes, func(json.RawMessage) (any, error) { return []agent.Lane{}, nil })
		m.Handle(agent.OpDeleteDry, func(json.RawMessage) (any, error) {
			return []agent.Deleted{{UUID: "u1", State: "refused", Why: "held by backup: the next copy starts from it"}}, nil
		})
		kept, err := r.run.Prune(t.Context(), r.run.Lanes[0], true)
		held := func(k phases.Kept) bool {
			return k.UUID == "u1" && k.State == "refused" && strings.HasPrefix(k.Why, "held by backup")
		}
		if err != nil || len(kept) != 2 || !slices.ContainsFunc(kept, held) {
			t.Errorf("%v, %+v", err, kept)
		}
	})
}

// What a restore has replaced is nowhere else: no lack of space takes it.
func TestWhatWasReplacedIsNotSpared(t *testing.T) {
	now := time.Now()
	list := []agent.Snapshot{{Run: "r1", Recorded: true, Replaced: true, Created: now}}
	if kept, _ := phases.Retain(list, nil, runbooks.Keep{GoodRuns: 1, FailedDays: 9, Most: 9}, now); !kept[0].Keep || kept[0].Spare {
		t.Errorf("%+v", kept)
	}
}

// A rollback that got stuck was closed as committed by the next run, since the
// record of the run that it undoes says so.
func TestAStuckRollbackIsNotSettledByTheNextRun(t *testing.T) {
	for decision, want := range map[string]string{"confirmed": "committed", "restoring": ""} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a@h1")
			l, m := r.run.Lanes[0], r.machines["h1"]
			l.Locked = false
			r.run.Past = func(string, string) state.Status { return state.Committed }
			m.With(func(w *phasetest.World) { w.Facts.OpenRun = "r0" })
			m.Handle(agent.OpLane, func(json.RawMessage) (any, error) {
				return agent.Lane{Run: "r0", Recipe: true, Decision: &agent.Decision{Decision: decision, Round: 2}}, nil
			})
			err := r.run.LockLane(t.Context(), l)
			if closed := m.World().Closed; closed != want || (err == nil) != (want != "") {
				t.Errorf("%s: closed as %q, %v", decision, closed, err)
			}
			if err != nil && !slices.Equal(phases.AsFailure(err).Hint, []string{"deployer rollback r0"}) {
				t.Error(phases.AsFailure(err).Hint)
			}
		})
	}
}

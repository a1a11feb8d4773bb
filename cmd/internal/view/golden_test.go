package view

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/backup"
	"github.com/hbohlen/deployer/state"
)

var update = flag.Bool("update", false, "write the goldens anew")

// golden compares what is printed with a file, which people look at before they
// agree to it.
func golden(t *testing.T, name string, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./cmd/internal/view -update writes it", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// forms are the ways in which everything is shown: both widths in full, colour
// and ASCII at the narrow one.
var forms = []struct {
	name string
	make func(*bytes.Buffer) *Streams
}{
	{"80", func(b *bytes.Buffer) *Streams { return &Streams{Out: b, Err: b, Width: 80} }},
	{"120", func(b *bytes.Buffer) *Streams { return &Streams{Out: b, Err: b, Width: 120} }},
	{"color", func(b *bytes.Buffer) *Streams { return &Streams{Out: b, Err: b, Width: 80, Color: true} }},
	{"ascii", func(b *bytes.Buffer) *Streams { return &Streams{Out: b, Err: b, Width: 80, ASCII: true} }},
}

// shown are all that the goldens show.
var shown = map[string]func(*Streams){
	"plan":         func(s *Streams) { s.Plan(thePlan(), false) },
	"plan-full":    func(s *Streams) { s.Plan(thePlan(), true) },
	"plan-nothing": func(s *Streams) { s.Plan(nothingPlan(), false) },
	"plan-on-host": func(s *Streams) { s.Plan(hostBuiltPlan(), false) },
	"run-good":     func(s *Streams) { play(s, goodRun()) },
	"run-failing":  func(s *Streams) { play(s, failingRun()) },
	"run-stuck":    func(s *Streams) { play(s, stuckRun()) },
	"run-unknown":  func(s *Streams) { play(s, unknownRun()) },
	"run-waiting":  func(s *Streams) { play(s, waitingRun()) },
	"run-rollback": func(s *Streams) { play(s, rollbackRun()) },
	"outcome":      outcomes,
	"failure":      failures,
	"status":       statuses,
	"doctor":       func(s *Streams) { s.Doctor(checkups()) },
	"history":      func(s *Streams) { s.History(rows(), time.UTC); s.History(nil, time.UTC) },
	"show": func(s *Streams) {
		s.Show(rows()[1], time.UTC)
		s.Show(rows()[2], time.UTC)
		s.Show(rows()[0], time.UTC)
		s.Show(rows()[3], time.UTC)
	},
	"undo":          undos,
	"snapshots":     stock,
	"copies":        copies,
	"report-failed": func(s *Streams) { s.Printf("%s", Report(rows()[1], thePlan(), time.UTC)) },
	"report-good":   func(s *Streams) { s.Printf("%s", Report(rows()[2], thePlan(), time.UTC)) },
}

func copies(s *Streams) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	s.Sent([]backup.Sent{
		{Host: "production", Subvolume: "/persist", At: "/srv/backup/production/20260102T113000Z-backup-persist", Bytes: 3 << 30, Took: 61},
		{Host: "production", Subvolume: "/var/lib/services", At: "/srv/backup/production/20260102T113000Z-backup-services", Since: now, Bytes: 117 << 10, Took: 1},
	})
	at := func(uuid, name, problem string) agent.Copy {
		return agent.Copy{Snapshot: agent.Snapshot{UUID: uuid, Source: "/persist", Created: now.Add(-30 * time.Minute), Path: "/s/20260102T113000Z-backup-persist"}, At: "/srv/backup/production/" + name, Problem: problem}
	}
	partial := agent.Copy{At: "/srv/backup/production/.deployer/receiving-1/new\nline", Problem: "a partial copy", Partial: true}
	s.Chains([]backup.Chain{{Host: "production", Parents: []string{"2"}, Copies: []agent.Copy{at("1", "a", "changed"), at("2", "b", ""), at("3", "c", ""), partial},
		Wrong: []phases.Finding{{Host: "production", What: "/srv/backup/production/a: it was changed after it was received", Hint: []string{"ssh backup btrfs subvolume delete /srv/backup/production/a"}}}}}, now)
}

func TestGoldens(t *testing.T) {
	for name, show := range shown {
		for _, form := range forms {
			t.Run(name+"/"+form.name, func(t *testing.T) {
				var b bytes.Buffer
				show(form.make(&b))
				golden(t, name+"."+form.name, b.String())
			})
		}
	}
}

// TestMeaningIsNotByColour: with its colours taken out, what is shown is the same.
func TestMeaningIsNotByColour(t *testing.T) {
	for name, show := range shown {
		var plain, colour bytes.Buffer
		show(&Streams{Out: &plain, Err: &plain, Width: 80})
		show(&Streams{Out: &colour, Err: &colour, Width: 80, Color: true})
		if !strings.Contains(name, "report") && !strings.Contains(colour.String(), "\x1b[") {
			t.Errorf("%s has no colour", name)
		}
		var lines []string
		for line := range strings.Lines(colour.String()) {
			lines = append(lines, Clean(line))
		}
		if d := cmp.Diff(plain.String(), strings.Join(lines, "\n")+"\n"); d != "" {
			t.Errorf("%s (-plain +colour):\n%s", name, d)
		}
	}
}

// TestWidths: nothing but paths, ids, commands and reasons goes beyond the
// terminal's width, and no line ends in a blank.
func TestWidths(t *testing.T) {
	for name, show := range shown {
		for _, columns := range []int{80, 120} {
			var b bytes.Buffer
			show(&Streams{Out: &b, Err: &b, Width: columns})
			for line := range strings.Lines(b.String()) {
				line = strings.TrimRight(line, "\n")
				if strings.HasSuffix(line, " ") {
					t.Errorf("%s at %d ends in a blank: %q", name, columns, line)
				}
				if width(line) > columns && !mayBeLong(name, line) {
					t.Errorf("%s at %d has %d columns: %s", name, columns, width(line), line)
				}
			}
		}
	}
}

func mayBeLong(name, line string) bool {
	for _, s := range []string{"failed: ", "skipped: ", "not notified: ", "error: ", " next: ", "       ", "  | ", "# ", "/nix/store/", "Report: ", "/persist/.snapshots/"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return strings.HasPrefix(name, "report")
}

func TestASCII(t *testing.T) {
	for name, show := range shown {
		var b bytes.Buffer
		show(&Streams{Out: &b, Err: &b, Width: 80, ASCII: true})
		for i, r := range b.String() {
			if r > 0x7e {
				t.Errorf("%s has %q: %s", name, r, b.String()[max(0, i-20):i+10])
				break
			}
		}
	}
}

// play shows a run's events as they would come.
func play(s *Streams, recs []state.Record) {
	h := NewHuman(s, time.UTC)
	h.Planned(thePlan())
	for _, rec := range recs {
		h.Event(rec)
	}
	h.Event(state.Record{Kind: state.StepProgress, Phase: "validate", Step: "validate/healthy@production", Host: "production", Text: "still running", Time: start, Elapsed: 70})
	h.Close()
}

func outcomes(s *Streams) {
	e := Ended{Run: runID, Runbook: "production", Took: 191, Report: "/home/anna/.local/state/deployer/infra-1a2b3c4d/" + runID + "/report.md"}
	lanes := func(a, b state.Status) map[string]state.Status {
		return map[string]state.Status{"staging": a, "production": b}
	}
	systems := func(sys string) map[string]string { return map[string]string{"staging": sys, "production": sys} }
	failed := func(exit int, hint ...string) *phases.Failure {
		return &phases.Failure{Exit: exit, Phase: "validate", Step: "healthy", Host: "production", Err: errors.New(why), Hint: hint, Output: []string{"HTTP/1.1 503 Service Unavailable", "upstream is \x1b[31mdown\x1b[0m"}}
	}
	end := func(o *phases.Outcome, e Ended) {
		s.Printf("--- exit %d", o.Exit)
		s.Outcome(o, e)
	}
	end(&phases.Outcome{Exit: phases.ExitOK, Status: state.Succeeded, Lanes: lanes(state.Committed, state.Committed), Systems: systems(newSystem)}, e)
	undone := e
	undone.Undoes = undoID
	end(&phases.Outcome{Exit: phases.ExitOK, Status: state.RolledBack, Lanes: lanes(state.Restored, state.Restored), Systems: systems(oldSystem)}, undone)
	data := e
	data.DataOnly, data.Undo = true, "deployer snapshots restore production 77dd1be0"
	one := map[string]state.Status{"production": state.Restored}
	end(&phases.Outcome{Exit: phases.ExitOK, Status: state.RolledBack, Lanes: one, Systems: systems(oldSystem)}, data)
	end(&phases.Outcome{Exit: phases.ExitStuck, Status: state.Stuck, Failure: failed(30), Lanes: map[string]state.Status{"production": state.Stuck}}, data)
	for _, exit := range []int{phases.ExitFailed, phases.ExitWaiting, phases.ExitRefused, phases.ExitUsage, phases.ExitPrecondition} {
		end(&phases.Outcome{Exit: exit, Status: state.Failed, Failure: failed(exit, "deployer plan production"), Lanes: lanes(state.Untouched, state.Untouched), Systems: systems(oldSystem)}, e)
	}
	end(&phases.Outcome{Exit: phases.ExitRolledBack, Status: state.RolledBack, Failure: failed(20, "curl -si https://web.example.net/healthz"), Lanes: lanes(state.Restored, state.Restored), Systems: systems(oldSystem)}, e)
	end(&phases.Outcome{Exit: phases.ExitByHost, Status: state.ByHost, Failure: &phases.Failure{Exit: 1, Host: "production", Err: errors.New("the guard decided at 03:12:44 to go back")}, Lanes: lanes(state.Restored, state.Restored), Systems: systems(oldSystem)}, e)
	paused := &phases.Failure{Exit: 130, Err: errors.New("stopped by the operator: the run can be resumed"), Output: []string{"production: its guard goes back by itself in 2m31s"}}
	end(&phases.Outcome{Exit: phases.ExitInterrupted, Status: state.Interrupted, Failure: paused, Lanes: lanes(state.Changing, state.Changing)}, e)
	end(&phases.Outcome{Exit: phases.ExitFenced, Status: state.Interrupted, Failure: failed(6), Lanes: lanes(state.Changing, state.Changing)}, e)
	end(&phases.Outcome{Exit: phases.ExitAborted, Status: state.RolledBack, Failure: &phases.Failure{Exit: 22, Err: errors.New("stopped by the operator")}, Lanes: lanes(state.Restored, state.Untouched), Systems: systems(oldSystem)}, e)
	end(&phases.Outcome{Exit: phases.ExitMixed, Status: state.RolledBack, Failure: failed(25), Lanes: lanes(state.Committed, state.Restored), Systems: map[string]string{"staging": newSystem, "production": oldSystem}}, e)
	alert := &phases.Failure{Exit: 26, Err: errors.New("1 monitor rule(s) breached"), Output: []string{"/nix/store: 91 percent used, want used_percent <= 90"}, Hint: []string{"deployer rollback " + runID}}
	end(&phases.Outcome{Exit: phases.ExitUnhealthy, Status: state.Succeeded, Failure: alert, Lanes: lanes(state.Committed, state.Committed), Systems: systems(newSystem)}, e)
	end(&phases.Outcome{Exit: phases.ExitStuck, Status: state.Stuck, Failure: failed(30), Lanes: lanes(state.Restored, state.Stuck), Systems: map[string]string{"staging": oldSystem},
		Remains: []string{"# on production, as root:", "nix-env -p /nix/var/nix/profiles/system --set " + oldSystem, oldSystem + "/bin/switch-to-configuration boot"}}, e)
	end(&phases.Outcome{Exit: phases.ExitUnknown, Status: state.OutOfReach, Failure: failed(31), Lanes: lanes(state.Restored, state.OutOfReach), Systems: map[string]string{"staging": oldSystem},
		Remains: []string{"# production is old after a reboot: its boot default was not touched (" + oldSystem + ")"}}, e)
}

func failures(s *Streams) {
	s.Failure(errors.New("plain"))
	s.Failure(fmt.Errorf("around: %w", &phases.Failure{
		Exit: 15, Err: errors.New("staging: there is no Nix on the host\nproduction: there is \x1b[1mno launcher\x07 at /nix/var/deployer/agent"),
		Safe:   "nothing was changed on any host",
		Hint:   []string{"ssh staging.example.net nix --version", "ssh staging.example.net nix --version", "deployer debug launcher | ssh root@web.example.net 'install -Dm755 /dev/stdin /nix/var/deployer/agent'"},
		Output: []string{"error: \x1b]0;title\x07builder for '/nix/store/x.drv' failed", "\rlast line"},
	}))
	s.Failure(&phases.Failure{Exit: 1, Phase: "build", Step: "system", Host: "production", Err: errors.New("cannot build .#web"), Hint: []string{"nix log /nix/store/x.drv"}})
}

func row(recs []state.Record, id, kind string, now state.Status) Row {
	r := state.Fold(recs)
	r.ID, r.Type = id, kind
	if now == "" {
		now = r.Status
	}
	return Row{Run: r, Now: now, Path: "/home/anna/.local/state/deployer/infra-1a2b3c4d/" + id}
}

// rows are a rollback, a run that failed, one that went well, one that was
// interrupted.
func rows() []Row {
	back := row(rollbackRun(), undoID, "rollback", "")
	back.Undoes = runID
	cut := row(waitingRun(), "01kaq000000a1b2c3d", "deploy", state.Interrupted)
	cut.By, cut.Damage = "github-actions-runner@fv-az1234-567.internal.cloudapp.net", "line 40: the checksum does not fit"
	cut.Late = 2
	failed := row(failingRun(), "01kar6zzzzzzzz0001", "deploy", "")
	failed.Reason = "ticket OPS-1234: openssl"
	return []Row{back, failed, row(goodRun(), runID, "deploy", ""), cut}
}

func statuses(s *Streams) {
	all := rows()
	now := before(42)
	now.System, now.Failed, now.OpenRun = newSystem, []string{"app.service", "logrotate.service", "systemd-networkd-wait-online.service"}, runID
	now.Holder = &agent.Holder{Run: runID, Owner: "anna@laptop", Since: start}
	ok := before(17)
	s.Status(Status{}, time.UTC)
	s.Printf("---\n")
	s.Status(Status{Last: &all[3], Hosts: []HostStatus{
		{Name: "backup-site", Problem: "cannot reach backup-site (198.51.100.20:22): dial tcp 198.51.100.20:22: connect: connection refused"},
		{Name: "controller", Facts: &agent.Facts{OS: "debian"}},
		{Name: "production", Facts: &now},
		{Name: "staging", Facts: &ok},
	}}, time.UTC)
}

func undos(s *Streams) {
	now := before(42)
	now.System = newSystem
	services := agent.Snapshot{Source: "/var/lib/services", Path: "/.snapshots/deployer/" + runID + "-services"}
	s.Undo(runID, []Undo{
		{Host: "production", Now: now, Before: before(41), Operations: slices.Insert(recipe(41), 1, agent.WayBack([]agent.Snapshot{services})...), Data: []Data{
			{Snapshot: agent.Snapshot{Source: "/persist", Path: "/.snapshots/deployer/" + runID + "-persist"}, Do: "keep"},
			{Snapshot: services, Do: "restore", Preview: &agent.Preview{Lost: []string{"app/new", "app/line\nbreak"}, Reverted: []string{"app/data"}, Coming: strings.Fields("a b c d e f g h i j k l"), Counts: agent.Counts{Lost: 2, Reverted: 1, Coming: 43}, Bytes: 12 << 10, Temporary: "/x"}},
			{Snapshot: agent.Snapshot{Source: "/var/lib/caddy", Path: "/.snapshots/deployer/" + runID + "-caddy"}, Do: "ask", Problem: "the snapshot is gone"}}},
		{Host: "staging", Now: now, Before: before(17), Operations: recipe(17), Room: []string{"/dev/sda2 has no room for a run's metadata: 12 MiB free and 0 MiB not allocated, 512 MiB are needed (the new system is 0 MiB)"}},
	})
}

// stock is what hosts have of snapshots.
func stock(s *Streams) {
	at := time.Date(2026, 2, 1, 3, 4, 5, 0, time.UTC)
	own := agent.Snapshot{Source: "/var/lib/services", Run: runID, Created: at, UUID: "77dd1be0-c3f1-4242-8a8b-000000000001", Path: "/.snapshots/deployer/20260201T030405Z-" + runID + "-var-lib-services"}
	back, other := own, agent.Snapshot{Source: "/persist", Maker: "snapper", Created: at.Add(time.Hour), UUID: "01dd1be0-c3f1-4242-8a8b-000000000002", Name: ".snapshots/7/snap\nshot"}
	back.Replaced, back.Run = true, undoID
	s.Snapshots([]SnapshotsOf{{"production", []agent.Snapshot{own, back, other}}, {"staging", nil}}, time.UTC)
	s.Back("production", []Data{{Snapshot: own, Do: "restore", Preview: &agent.Preview{Coming: []string{"gone"}, Moved: []agent.Moved{{Then: "then", Now: "now"}}, Pinned: 3 << 20, Counts: agent.Counts{Coming: 1, Moved: 1}}}})
	root := own
	root.Source = "/"
	s.Back("production", []Data{{Snapshot: root, Do: "restore", Reboot: newSystem, Problem: "the agent is gone"}})
	s.Prune([]Pruned{{"production", []phases.Kept{{Snapshot: own, Why: "6 good runs are newer", State: "later"}, {Snapshot: back, Keep: true, Why: "3 days old, of 30"}, {Snapshot: other, Why: "it is mounted at /mnt", State: "refused"}}}, {"staging", nil}})
	s.Prune([]Pruned{{"staging", nil}})
}

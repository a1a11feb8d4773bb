package view

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/state"
)

// What the goldens show: a project with staging and production, as it is on the
// lab's hosts.

const (
	runID  = "01kar5c2xe7m3qz4n8"
	undoID = "01kar7h9b0d2f4g6h8"
)

var start = time.Date(2026, 11, 21, 2, 4, 0, 0, time.UTC)

func store(c byte, name string) string {
	return "/nix/store/" + fmt.Sprintf("%c7pxk3yqvmsz2adwlgcn0rfhb1i6j485", c) + "-" + name
}

var (
	oldSystem = store('q', "nixos-system-web-25.11.20261003.a9c2f00")
	newSystem = store('m', "nixos-system-web-25.11.20261120.77dd1be")
)

func before(gen int) agent.Facts {
	return agent.Facts{OS: "nixos", System: oldSystem,
		Profile: agent.Profile{Path: "/nix/var/nix/profiles/system", Generation: gen, System: oldSystem},
		Boot:    agent.Boot{Loader: "systemd-boot", Default: fmt.Sprintf("nixos-generation-%d.conf", gen), System: oldSystem}}
}

func recipe(gen int) []agent.Operation {
	boot := before(gen).Boot
	return []agent.Operation{
		{Op: agent.DoStopJob, Unit: "deployer-" + runID + "-test-1.service"},
		{Op: agent.DoBoot, Boot: &boot},
		{Op: agent.DoProfile, Generation: gen, Drop: gen + 1, DropSystem: newSystem},
		{Op: agent.DoWriteFile, Path: "/etc/app/settings.toml", Digest: "ab12"},
		{Op: agent.DoActivate, System: oldSystem, Action: "test"},
		{Op: agent.DoUnits, Units: []string{"app.service", "caddy.service", "nginx.service", "postgresql.service", "redis.service", "sshd.service"}},
	}
}

func step(phase, name, host, text string) phases.PlanStep {
	key := phase + "/" + name
	if host != "" {
		key += "@" + host
	}
	return phases.PlanStep{Key: key, Name: name, Host: host, Text: text}
}

func undo(s phases.PlanStep, ops ...agent.Operation) phases.PlanStep {
	s.Undo = ops
	return s
}

func switched(phase, host string, gen int) []phases.PlanStep {
	r := recipe(gen)
	return []phases.PlanStep{
		step(phase, "lock", host, "take the host's lock, pin the running system"),
		step(phase, "copy", host, "copy "+phases.ShortPath(newSystem)),
		step(phase, "dry-activate", host, "ask the new system what it would restart"),
		step(phase, "snapshot", host, "read-only: /persist, /var/lib/services, /var/lib/caddy"),
		undo(step(phase, "test", host, "activate "+phases.ShortPath(newSystem)+"; profile and boot default stay"), r[0], r[4], r[5]),
	}
}

func judged(phase, host string, gen int) []phases.PlanStep {
	r := recipe(gen)
	return []phases.PlanStep{
		step(phase, "contact", host, "a new connection and login, within 2m0s"),
		step(phase, "multi-user.target", host, "unit multi-user.target is active, within 60s"),
		step(phase, "healthy", host, "GET https://web.example.net/healthz answers 200, 3 times in a row, within 60s"),
		undo(step(phase, "profile", host, fmt.Sprintf("commit: generation %d → %d", gen, gen+1)), r[2]),
		undo(step(phase, "boot", host, "make it the boot default"), r[1]),
		step(phase, "confirm", host, "read profile, boot default and system back"),
	}
}

func thePlan() *phases.Plan {
	wait := step("window", "open", "", "sat 02:00-04:00 UTC: opens Sat 2026-11-21 02:00 UTC; the run waits for it")
	files := undo(step("backup", "files", "production", "keep a copy of 2 files; a rollback puts them back"), recipe(41)[3])
	files.Detail = []string{"/etc/app/settings.toml", "/etc/hand.conf"}
	build := step("build", "system", "staging", phases.ShortPath(newSystem))
	p := &phases.Plan{
		Runbook: "production", Flake: ".", Revision: "77dd1be0c3f14a5566778899aabbccddeeff0011",
		Vars: map[string]string{"burn_in": "1h"}, Changed: map[string]string{"burn_in": "24h"},
		Hosts: []phases.PlanHost{
			{Name: "staging", Address: "staging.example.net", User: "deploy", System: "web-staging", From: before(17), To: newSystem,
				Diff:  &nix.Diff{Bytes: 14_900_000, Paths: 3, Missing: 4_100_000, Items: []nix.Item{{Name: "app", Old: []string{"2.0.0"}, New: []string{"2.0.1"}, Bytes: 120_000}}},
				Units: nix.UnitDiff{Restart: []string{"app.service"}},
				Notes: []string{"no snapshots declared: data is not covered"}},
			{Name: "production", Address: "web.example.net", User: "deploy", System: "web", From: before(41), To: newSystem, Reboot: "kernel and initrd",
				Diff: &nix.Diff{Bytes: -2_200_000, Paths: 214, Missing: 91_000_000, Items: []nix.Item{
					{Name: "app", Old: []string{"2.0.0"}, New: []string{"2.0.1"}, Bytes: 120_000},
					{Name: "curl", Old: []string{"8.16.0", "8.16.0-bin", "8.16.0-dev", "8.16.0-man"}, New: []string{"8.17.0", "8.17.0-bin", "8.17.0-dev", "8.17.0-man"}, Bytes: 40_000},
					{Name: "etc", Old: []string{""}, New: []string{""}, Bytes: 20_000},
					{Name: "glibc", Old: []string{"2.40"}, New: []string{"2.42"}, Bytes: -900_000},
					{Name: "htop", Old: nil, New: []string{"3.4.1"}, Bytes: 410_000},
					{Name: "linux", Old: []string{"6.12.51"}, New: []string{"6.12.58"}, Bytes: 70_000},
					{Name: "openssl", Old: []string{"3.5.2"}, New: []string{"3.6.0"}},
					{Name: "postgresql", Old: []string{"17.5"}, New: []string{"17.6"}, Bytes: 30_000},
					{Name: "screen", Old: []string{"5.0.1"}, New: nil, Bytes: -1_900_000},
					{Name: "tzdata", Old: []string{"2025b"}, New: []string{"2025c"}},
				}},
				Units: nix.UnitDiff{Stop: []string{"screen-cleanup.service"}, Start: []string{"htop-log.service"}, Restart: []string{"app.service", "caddy.service", "postgresql.service", "systemd-journald.service"}, Reload: []string{"dbus.service"}, Keep: []string{"multi-user.target"}},
				Notes: []string{
					"no guard after a reboot: the old system does not import deployer-host.nix. Before the profile step a reboot brings the old system back by itself, after it only `deployer rollback` does",
					"snapshots are kept, data stays as the new system left it (on_rollback: keep)",
				}},
		},
		Phases: []phases.PlanPhase{
			{Name: "backup", Steps: []phases.PlanStep{step("backup", "repository", "", "keep a copy of 2 files with digests, and the checkout's state"), files}},
			{Name: "build", Steps: []phases.PlanStep{step("build", "parse", "", "parse 12 .nix files"), build, step("build", "system", "production", phases.ShortPath(newSystem))}},
			{Name: "staging", Steps: append(append(switched("staging", "staging", 17), judged("staging", "staging", 17)...), step("staging", "evidence", "staging", "record what was proved: revision and system"))},
			{Name: "window", Steps: []phases.PlanStep{wait}},
			{Name: "switch", Steps: switched("switch", "production", 41)},
			{Name: "validate", Steps: judged("validate", "production", 41)},
			{Name: "monitor", Steps: []phases.PlanStep{step("monitor", "watch", "", "for 1h, every 1m: 2 rules")}},
		},
	}
	p.Digest = "3f2a90c4d5e6f708192a3b4c5d6e7f80"
	return p
}

func checkups() []Checkup {
	return []Checkup{
		{Name: "production", Address: "web.example.net", Checks: []Checked{
			{Check: "login", State: CheckOK, Text: "deploy, by a host key that is known"},
			{Check: "switch", State: CheckFail, Text: "the Nix daemon does not trust deploy, so it refuses to copy paths that are not signed",
				Hint: []string{"# in the host's configuration: nix.settings.trusted-users = [ \"root\" \"deploy\" ];", "# or sign on this machine: nix key generate-secret --key-name deployer-1 > key.sec"}},
			{Check: "module", State: CheckWarn, Text: "the running system does not import deployer-host.nix: after a reboot there is no guard", Hint: []string{"deployer init --module"}},
			{Check: "space", State: CheckOK, Text: "/boot: 401.2 MiB of 511.0 MiB free"},
		}},
		{Name: "staging", Address: "staging.example.net", Checks: []Checked{
			{Check: "host key", State: CheckFail, Text: "cannot reach staging (staging.example.net:22): the host key is not known\x1b[1m", Hint: []string{"ssh-keyscan staging.example.net"}},
		}},
	}
}

func nothingPlan() *phases.Plan {
	p := thePlan()
	p.Nothing, p.Changed = true, nil
	for i := range p.Hosts {
		p.Hosts[i].Unchanged = true
	}
	for i := range p.Phases {
		for j := range p.Phases[i].Steps {
			s := &p.Phases[i].Steps[j]
			s.Nothing, s.Undo = s.Host != "", nil
		}
	}
	return p
}

// hostBuiltPlan is of a host that builds its system itself.
func hostBuiltPlan() *phases.Plan {
	p := thePlan()
	p.Hosts = p.Hosts[1:]
	p.Hosts[0].Diff, p.Hosts[0].Units, p.Hosts[0].Reboot = nil, nix.UnitDiff{Unknown: true}, ""
	s := step("build", "system", "production", "build "+phases.ShortPath(newSystem)+" on production")
	s.Unknown = true
	p.Phases = []phases.PlanPhase{{Name: "build", Steps: []phases.PlanStep{s}}, p.Phases[4], p.Phases[5]}
	return p
}

// telling makes records of a run, each some time after the one before.
type telling struct {
	recs []state.Record
	now  time.Time
}

func tell(runbook, undoes string) *telling {
	t := &telling{now: start}
	t.add(0, state.Record{Kind: state.RunCreated}, state.Created{Type: "deploy", Runbook: runbook, Undoes: undoes, Revision: thePlan().Revision, Hosts: []string{"staging", "production"}, By: "anna@laptop", Version: "1.0"})
	return t
}

func (t *telling) add(took float64, rec state.Record, data any) *telling {
	t.now = t.now.Add(time.Duration(took * float64(time.Second)))
	rec.V, rec.Seq, rec.Run, rec.Time, rec.Elapsed = 1, uint64(len(t.recs)+1), runID, t.now, took
	if data != nil {
		rec.Data, _ = json.Marshal(data)
	}
	t.recs = append(t.recs, rec)
	return t
}

func (t *telling) step(kind state.Kind, took float64, phase, name, host, text, reason string) *telling {
	key := phase + "/" + name
	if host != "" {
		key += "@" + host
	}
	return t.add(took, state.Record{Kind: kind, Phase: phase, Step: key, Host: host, Text: text, Reason: reason, Attempt: 1}, nil)
}

func (t *telling) done(took float64, phase, name, host string) *telling {
	t.step(state.StepIntent, 0, phase, name, host, "", "")
	return t.step(state.StepDone, took, phase, name, host, "", "")
}

// phase tells the steps of a phase of the plan as done, up to the one named.
func (t *telling) phase(name, until string) *telling {
	for _, ph := range thePlan().Phases {
		if ph.Name != name {
			continue
		}
		t.add(0, state.Record{Kind: state.PhaseStarted, Phase: name, Text: name}, nil)
		for i, s := range ph.Steps {
			if s.Name == until {
				return t
			}
			t.done([]float64{0.012, 1.84, 0.31, 12.5, 62.1, 0.08}[i%6], name, s.Name, s.Host)
		}
		t.add(0, state.Record{Kind: state.PhaseFinished, Phase: name}, nil)
	}
	return t
}

func (t *telling) finished(o state.Status, exit int, lane state.Status) *telling {
	system := oldSystem
	if lane == state.Committed {
		system = newSystem
	}
	lanes := map[string]state.Status{"staging": lane, "production": lane}
	rec := state.Record{Kind: state.RunFinished}
	if exit != 0 {
		rec.Reason = "validate/healthy on production: " + why
	}
	return t.add(0, rec, state.Finished{Outcome: o, Exit: exit, Lanes: lanes, Systems: map[string]string{"staging": system, "production": system}})
}

func (t *telling) undo(host string, fails bool) *telling {
	t.step(state.UndoIntent, 0, "undo", "restore", host, "6 operations", "")
	for i, op := range recipe(41) {
		kind, reason := state.UndoDone, ""
		if fails && op.Op == agent.DoActivate {
			kind, reason = state.UndoFailed, "switch-to-configuration ended with exit code 4: app.service failed"
		}
		t.step(kind, float64(i)*0.7, "undo", fmt.Sprintf("%d-%s", i+1, op.Op), host, phases.Words(op), reason)
		if fails && reason != "" {
			return t.step(state.UndoFailed, 4.2, "undo", "restore", host, "", "the host is not as it was before: the running system is "+newSystem+", was "+oldSystem+"; app.service has failed")
		}
	}
	return t.step(state.UndoDone, 9.4, "undo", "restore", host, "verified: generation 41, "+phases.ShortPath(oldSystem), "")
}

const why = "503, want 200 (http https://web.example.net/healthz; 31 tries in 60s)"

func goodRun() []state.Record {
	t := tell("production", "").phase("backup", "").phase("build", "").phase("staging", "").phase("window", "")
	t.step(state.StepSkipped, 0, "switch", "dry-activate", "production", "", "nothing would be restarted")
	t.phase("switch", "").phase("validate", "")
	t.step(state.StepRetry, 5, "switch", "test", "production", "", "another switch-to-configuration is running")
	t.add(0, state.Record{Kind: state.Decision, Phase: "gate", Step: "gate/ops", Text: "Team notified, emergency contacts up to date", Reason: "signed by Anna at anna@laptop"}, nil)
	t.add(0, state.Record{Kind: state.Check, Phase: "monitor", Step: "monitor/watch", Host: "production", Text: "breached: /nix/store 91 percent used, want used_percent <= 90", Reason: "alert"}, nil)
	t.add(0, state.Record{Kind: state.Note, Host: "production", Text: "the lane could not be closed on the host: lost contact"}, nil)
	t.add(0, state.Record{Kind: state.Repaired, Text: "a torn last line was set aside"}, nil)
	t.add(0, state.Record{Kind: state.Notified, Text: "ops was told: production: succeeded", Reason: "HTTP 204"}, nil)
	t.add(0, state.Record{Kind: state.NotifyFailed, Reason: "oncall: the receiver answered 500 Internal Server Error; it was tried 3 times in 12s"}, nil)
	return t.finished(state.Succeeded, 0, state.Committed).recs
}

func failingRun() []state.Record {
	t := tell("production", "").phase("switch", "").phase("validate", "healthy")
	t.step(state.StepFailed, 60.04, "validate", "healthy", "production", "", why)
	t.undo("production", false)
	t.add(0, state.Record{Kind: state.Note, Host: "production", Text: "/persist: what it was is kept as /.snapshots/was"}, nil)
	return t.finished(state.RolledBack, 20, state.Restored).recs
}

func stuckRun() []state.Record {
	t := tell("production", "").phase("switch", "test")
	t.step(state.StepFailed, 14, "switch", "test", "production", "", "the activation ended with exit code 4\napp.service failed")
	t.undo("production", true)
	return t.finished(state.Stuck, 30, state.Stuck).recs
}

func unknownRun() []state.Record {
	t := tell("production", "").phase("switch", "test")
	t.step(state.StepFailed, 42, "switch", "test", "production", "", "lost contact with production (203.0.113.7:22): connection timed out")
	t.step(state.UndoIntent, 0, "undo", "restore", "production", "3 operations", "")
	t.step(state.UndoFailed, 30, "undo", "restore", "production", "", "cannot reach production (203.0.113.7:22): connection timed out")
	return t.finished(state.OutOfReach, 31, state.OutOfReach).recs
}

func waitingRun() []state.Record {
	t := tell("production", "").phase("build", "")
	t.step(state.StepWaiting, 0, "window", "open", "", "", "the window opens Sat 2026-11-21 02:00 UTC")
	t.add(0, state.Record{Kind: state.RunState}, state.Moved{To: state.Waiting})
	return t.recs
}

func rollbackRun() []state.Record {
	return tell("production", undoID).undo("production", false).finished(state.RolledBack, 0, state.Restored).recs
}

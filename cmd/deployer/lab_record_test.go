package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// labRun is what a run left on the controller.
type labRun struct {
	*site
	result
	id, dir string
	plan    phases.Plan
	journal []state.Record
}

// runs are the folders of all runs, the oldest first.
func (s *site) runs() []string {
	s.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.state, "deployer", "*", "*"))
	if err != nil {
		s.Fatal(err)
	}
	slices.Sort(dirs)
	return dirs
}

// latest reads the newest run.
func (s *site) latest() *labRun {
	s.Helper()
	dirs := s.runs()
	if len(dirs) == 0 {
		s.Fatal("there is no run")
	}
	r := &labRun{site: s, dir: dirs[len(dirs)-1]}
	r.id = filepath.Base(r.dir)
	recs, damage, err := state.Read(r.dir)
	if err != nil || damage != nil {
		s.Fatalf("the journal of %s: %v %v", r.id, err, damage)
	}
	r.journal = recs
	b, err := os.ReadFile(filepath.Join(r.dir, "plan.json"))
	if err == nil {
		err = json.Unmarshal(b, &r.plan)
	}
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return r
}

// written is the journal of the newest run, also while it goes on.
func (s *site) written() string {
	s.Helper()
	dirs := s.runs()
	if len(dirs) == 0 {
		return ""
	}
	b, _ := os.ReadFile(filepath.Join(dirs[len(dirs)-1], "journal.jsonl"))
	return string(b)
}

// of gives the records of a step, in order.
func (r *labRun) of(step string, kinds ...state.Kind) []state.Record {
	var out []state.Record
	for _, rec := range r.journal {
		if rec.Step == step && (len(kinds) == 0 || slices.Contains(kinds, rec.Kind)) {
			out = append(out, rec)
		}
	}
	return out
}

var outcomes = []state.Kind{state.StepDone, state.StepFailed, state.StepSkipped, state.StepRetry, state.StepWaiting}

// tells wants the whole story in the journal: of every step of the plan an
// intent and then an outcome, up to the one that failed ("": none did), and of
// those after it nothing. The plan's undo is in the intent.
func (r *labRun) tells(failed string) {
	r.Helper()
	past := false
	for _, phase := range r.plan.Phases {
		for _, step := range phase.Steps {
			ends := r.of(step.Key, outcomes...)
			switch {
			case past && len(r.of(step.Key)) > 0:
				r.Errorf("%s ran after %s had failed", step.Key, failed)
			case past:
			case len(ends) == 0:
				r.Errorf("the journal has no outcome of %s", step.Key)
			case step.Key == failed && ends[len(ends)-1].Kind != state.StepFailed:
				r.Errorf("%s is %s, not failed", step.Key, ends[len(ends)-1].Kind)
			case step.Key != failed && ends[len(ends)-1].Kind == state.StepFailed:
				r.Errorf("%s failed: %s", step.Key, ends[len(ends)-1].Reason)
			default:
				r.intended(step, ends)
			}
			past = past || step.Key == failed
		}
	}
	if failed != "" && !past {
		r.Errorf("the plan has no step %s", failed)
	}
	if last := r.journal[len(r.journal)-1]; last.Kind != state.RunFinished {
		r.Errorf("the journal ends with %s", last.Kind)
	}
}

// intended wants an intent before every outcome; what was skipped needs none.
func (r *labRun) intended(step phases.PlanStep, ends []state.Record) {
	r.Helper()
	intents := r.of(step.Key, state.StepIntent)
	if len(ends) == 1 && ends[0].Kind == state.StepSkipped {
		return
	}
	if len(intents) != len(ends) {
		r.Errorf("%s has %d intents and %d outcomes", step.Key, len(intents), len(ends))
		return
	}
	for i := range ends {
		if intents[i].Seq > ends[i].Seq {
			r.Errorf("the outcome of %s stands before its intent", step.Key)
		}
	}
	var in state.Intent
	if err := json.Unmarshal(intents[0].Data, &in); err != nil {
		r.Error(err)
	}
	if len(step.Undo) > 0 && len(in.Undo) == 0 {
		r.Errorf("the intent of %s has no undo, the plan has one", step.Key)
	}
}

// end is what the journal says of the run's end.
func (r *labRun) end() state.Finished {
	r.Helper()
	var f state.Finished
	if err := json.Unmarshal(r.journal[len(r.journal)-1].Data, &f); err != nil {
		r.Fatal(err)
	}
	return f
}

// lanes wants how the lanes ended, as the journal and the hosts have it.
func (r *labRun) lanes(staging, production state.Status) {
	r.Helper()
	r.equal("lanes", r.end().Lanes, map[string]state.Status{"staging": staging, "production": production})
}

// restored wants an undo with an intent and an outcome of every lane.
func (r *labRun) restored(hosts ...string) {
	r.Helper()
	for _, h := range hosts {
		step := "undo/restore@" + h
		var kinds []state.Kind
		for _, rec := range r.of(step) {
			kinds = append(kinds, rec.Kind)
		}
		r.equal(step, kinds, []state.Kind{state.UndoIntent, state.UndoDone})
	}
}

// snapshots wants the run's snapshots of a host to be on the host, read-only,
// and of the subvolume that they should be of: by btrfs, not by deployer.
func (r *labRun) snapshots(lane string, h labtest.Host) {
	r.Helper()
	var taken struct {
		Snapshots []agent.Snapshot `json:"snapshots"`
	}
	for _, rec := range r.journal {
		if rec.Kind == state.StepDone && rec.Host == lane && strings.HasSuffix(rec.Step, "/snapshot@"+lane) {
			if err := json.Unmarshal(rec.Data, &taken); err != nil {
				r.Fatal(err)
			}
		}
	}
	var sources []string
	for _, s := range taken.Snapshots {
		sources = append(sources, s.Source)
		out := h.Enter(r.T, "btrfs property get "+s.Path+" ro && btrfs subvolume show "+s.Path+" && btrfs subvolume show "+s.Source)
		lines := strings.Split(out, "\n")
		if lines[0] != "ro=true" {
			r.Errorf("%s on %s: %s", s.Path, h, lines[0])
		}
		parent, uuid := field(out, "Parent UUID:"), last(out, "UUID:")
		if parent != s.ParentUUID || parent != uuid {
			r.Errorf("%s is a snapshot of %s, not of %s (%s)", s.Path, parent, s.Source, uuid)
		}
	}
	slices.Sort(sources)
	r.equal("what snapshots were taken of on "+lane, sources, []string{"/persist", "/var/lib/caddy", "/var/lib/services"})
}

// field is the first value of a name in lines of NAME VALUE, last the last one.
func field(text, name string) string { return strings.Join(values(text, name)[:1], "") }

func last(text, name string) string {
	v := values(text, name)
	return v[len(v)-1]
}

func values(text, name string) []string {
	var v []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
			v = append(v, strings.TrimSpace(rest))
		}
	}
	return append(v, "")[:max(1, len(v))]
}

// kept wants a file of the run's folder with some words in it.
func (r *labRun) kept(name string, words ...string) {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, "output", name))
	if err != nil {
		r.Errorf("the run keeps no %s: %v", name, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(string(b), w) {
			r.Errorf("%s does not have %q:\n%s", name, w, b)
		}
	}
}

// notified wants one notification of this run, with its exit code.
func (r *labRun) notified() {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.site.dir, "notifications.jsonl"))
	if err != nil {
		r.Error(err)
		return
	}
	var mine []string
	for line := range strings.Lines(string(b)) {
		var n struct {
			Run  string `json:"run"`
			Exit int    `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			r.Error(err)
		}
		if n.Run != r.id {
			continue
		}
		mine = append(mine, line)
		if n.Exit != r.end().Exit {
			r.Errorf("the notification has exit code %d, the run %d", n.Exit, r.end().Exit)
		}
	}
	if len(mine) != 1 {
		r.Errorf("%d notifications were sent: %q", len(mine), mine)
	}
}

package view

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// Row is a run in a list.
type Row struct {
	*state.Run
	Now    state.Status `json:"now"` // derived: interrupted, where nobody works on it any more
	Path   string       `json:"path"`
	Damage string       `json:"damage,omitempty"`
}

// History prints runs as a table, newest first.
func (s *Streams) History(rows []Row, zone *time.Location) {
	if len(rows) == 0 {
		s.Printf("No runs yet. Start with: deployer run production --dry-run\n")
		return
	}
	s.Printf("%s\n", s.style(bold, pad("RUN", 20)+pad("STARTED", 22)+pad("BY", 22)+pad("RUNBOOK", 14)+pad("RESULT", 16)+"TOOK"))
	for _, r := range rows {
		what := r.Runbook
		if r.Undoes != "" {
			what = "undo " + r.Undoes
		}
		s.Printf("%s%s%s%s%s%s\n", pad(r.ID, 20), pad(r.Started.In(zone).Format("2006-01-02 15:04 MST"), 22), pad(fit(r.By, 20), 22),
			pad(fit(what, 13), 14), pad(resultWord(r), 16), took(r.Run))
	}
}

func resultWord(r Row) string {
	if r.Type == "rollback" && r.Now == state.RolledBack {
		return "restored"
	}
	return string(r.Now)
}

func took(r *state.Run) string {
	if r.Ended.IsZero() {
		return ""
	}
	return Duration(r.Ended.Sub(r.Started).Seconds())
}

// Show prints one run with all its steps.
func (s *Streams) Show(r Row, zone *time.Location) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n", s.style(bold, "run "+r.ID), r.Runbook, resultWord(r))
	fmt.Fprintf(&b, "  started  %s by %s\n", r.Started.In(zone).Format("2006-01-02 15:04:05 MST"), r.By)
	if r.Revision != "" {
		fmt.Fprintf(&b, "  revision %s\n", short(r.Revision))
	}
	if r.Exit != nil {
		fmt.Fprintf(&b, "  exit     %d, after %s\n", *r.Exit, took(r.Run))
	}
	for _, host := range keys(r.Lanes) {
		l := r.Lanes[host]
		fmt.Fprintf(&b, "  host     %s %s %s\n", pad(host, 12), pad(laneWord(l.Status), 14), phases.ShortPath(l.System))
	}
	for _, ph := range r.Phases {
		fmt.Fprintf(&b, "%s %s\n", s.style(bold, pad(ph.Name, 30)), s.style(dim, Duration(ph.Elapsed)))
		for _, st := range ph.Steps {
			b.WriteString(s.showStep(st))
		}
	}
	for _, d := range append(r.Decisions, append(r.Checks, r.Notifications...)...) {
		fmt.Fprintf(&b, "  • %s\n", Clean(strings.TrimSpace(d.Text+" "+d.Reason)))
	}
	fmt.Fprintf(&b, "  folder   %s\n", r.Path)
	s.Printf("%s", b.String())
}

var stepMark = map[state.StepStatus]string{
	state.StatusDone: "✓", state.StatusFailed: "✗", state.StatusSkipped: "–", state.StatusUndone: "↩",
}

func (s *Streams) showStep(st state.StepState) string {
	name, _, _ := strings.Cut(st.Key, "@")
	_, name, _ = strings.Cut(name, "/")
	m := stepMark[st.Status]
	if m == "" {
		m = "…"
	}
	text := Clean(firstLine(strings.TrimSpace(st.Text + " " + st.Reason)))
	took := ""
	if st.Elapsed >= 0.05 {
		took = Duration(st.Elapsed)
	}
	return strings.TrimRight(fmt.Sprintf("  %s %s %s %s %s %s", m, pad(name, 18), pad(st.Host, 12), pad(string(st.Status), 10), pad(took, 8), text), " ") + "\n"
}

// JSONDoc prints a value as indented JSON: the machine's form of a result.
func (s *Streams) JSONDoc(v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.Notef("internal error: cannot encode: %v\n", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.Out.Write(append(b, '\n'))
}

package view

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/state"
)

// Row is a run in a list.
type Row struct {
	*state.Run
	Now    state.Status `json:"now"` // derived: interrupted, where nobody works on it any more
	Path   string       `json:"path"`
	Undone string       `json:"undone_by,omitempty"` // the run that rolled it back, or what it was to undo
	Damage string       `json:"damage,omitempty"`
	Late   int          `json:"late,omitempty"` // records of a process that was taken over from
}

// MarkUndone finds the runs that later ones rolled back, on every host that had
// something to undo. The newest run comes first.
func MarkUndone(rows []Row) {
	back := map[string]map[string]bool{} // run → hosts that went back
	for i := range rows {
		r := &rows[i]
		if r.Undoes != "" {
			for host, l := range r.Lanes {
				if l.Status == state.Restored {
					if back[r.Undoes] == nil {
						back[r.Undoes] = map[string]bool{"": true}
					}
					back[r.Undoes][host] = true
				}
			}
			continue
		}
		if hosts := back[r.ID]; hosts != nil && covers(hosts, r.Lanes) {
			r.Undone = undoneBy(rows[:i], r.ID)
			settle(rows[:i], r)
		}
	}
}

// settle ends the earlier tries to undo a run that is undone by now: nothing is
// left of them to be settled.
func settle(later []Row, of *Row) {
	for i := range later {
		if try := &later[i]; try.Undoes == of.ID && try.ID != of.Undone {
			try.Undone = of.Undone
		}
	}
}

func covers(back map[string]bool, lanes map[string]state.Lane) bool {
	for host, l := range lanes {
		switch l.Status {
		case "", state.Planned, state.Untouched, state.Restored: // nothing to bring back
		default:
			if !back[host] {
				return false
			}
		}
	}
	return true
}

func undoneBy(later []Row, run string) string {
	for _, r := range later {
		if r.Undoes == run {
			return r.ID
		}
	}
	return ""
}

// Open tells whether a run is at work, or ended without settling what it changed.
func (r Row) Open() bool {
	switch r.Now {
	case state.Interrupted, state.Stuck, state.OutOfReach:
		return r.Changed && r.Undone == ""
	case state.Planned, state.Waiting, state.Preparing, state.Changing, state.Validating, state.Committing, state.Monitoring, state.Restoring:
		return true
	}
	return false
}

// History prints runs as a table, newest first.
func (s *Streams) History(rows []Row, zone *time.Location) {
	if len(rows) == 0 {
		s.Printf("No runs yet. Start with: deployer run production --dry-run\n")
		return
	}
	when := "2006-01-02 15:04"
	if s.Width < 100 {
		when = "01-02 15:04"
	}
	table := [][]string{{"RUN", "STARTED " + rows[0].Started.In(zone).Format("MST"), "RESULT", "TOOK", "BY", "RUNBOOK"}}
	for _, r := range rows {
		table = append(table, []string{r.ID, r.Started.In(zone).Format(when), resultWord(r), took(r.Run), Clean(r.who(s.Width < 100)), r.what()})
	}
	s.table(table)
}

// table prints rows in columns as wide as they need; the first row is their heads.
func (s *Streams) table(rows [][]string) {
	wide := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			wide[i] = max(wide[i], width(c))
		}
	}
	for n, row := range rows {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(pad(c, wide[i]+2))
		}
		line := strings.TrimRight(b.String(), " ")
		if n == 0 {
			line = s.style(bold, line)
		}
		s.Printf("%s\n", line)
	}
}

// what is what a run was about.
func (r Row) what() string {
	if r.Undoes != "" {
		return "undo " + r.Undoes[:min(len(r.Undoes), 10)] // enough of it to name it
	}
	return r.Runbook
}

// who is who started it; where there is little room, without the machine.
func (r Row) who(short bool) string {
	name, _, _ := strings.Cut(r.By, "@")
	if short {
		return fit(name, 8)
	}
	return fit(r.By, 24)
}

func resultWord(r Row) string {
	if r.Undone != "" && r.Undoes == "" {
		return "undone"
	}
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
	if r.Undoes != "" {
		fmt.Fprintf(&b, "  undoes   run %s\n", r.Undoes)
	}
	b.WriteString(s.wrap("  started  ", r.Started.In(zone).Format("2006-01-02 15:04:05 MST")+" by "+r.By))
	if r.Reason != "" {
		b.WriteString(s.wrap("  reason   ", r.Reason))
	}
	if r.Revision != "" {
		fmt.Fprintf(&b, "  revision %s\n", short(r.Revision))
	}
	if r.Exit != nil {
		fmt.Fprintf(&b, "  exit     %d, after %s\n", *r.Exit, took(r.Run))
	}
	if r.Exit != nil && *r.Exit != 0 && r.Waits != "" {
		b.WriteString(s.wrap("  cause    ", r.Waits))
	}
	if r.Damage != "" {
		b.WriteString(s.wrap("  damaged  ", r.Damage))
	}
	if r.Late > 0 {
		b.WriteString(s.wrap("  late     ", fmt.Sprintf("%d records of a process that had been taken over from; they do not count", r.Late)))
	}
	hosts := widest(keys(r.Lanes))
	for _, host := range keys(r.Lanes) {
		l := r.Lanes[host]
		b.WriteString(strings.TrimRight(fmt.Sprintf("  host     %s  %s  %s", pad(host, hosts), pad(laneWord(l.Status), 13), fit(shortPath(l.System), max(s.Width-hosts-28, 30))), " ") + "\n")
	}
	names := 0
	for _, ph := range r.Phases {
		for _, st := range ph.Steps {
			names = max(names, min(width(stepName(st)), 28))
		}
	}
	for _, ph := range r.Phases {
		b.WriteString(s.style(bold, ph.Name))
		if ph.Elapsed >= 0.05 {
			b.WriteString("  " + s.style(dim, Duration(ph.Elapsed)))
		}
		b.WriteString("\n")
		for _, st := range ph.Steps {
			b.WriteString(s.showStep(st, names, hosts))
		}
	}
	for _, d := range r.events() {
		b.WriteString(s.wrap("  • "+d.Time.In(zone).Format("15:04:05")+" ", tells(d)))
	}
	fmt.Fprintf(&b, "  folder   %s\n", r.Path)
	s.Printf("%s", b.String())
}

// events are what is to be told of a run beside its steps.
func (r Row) events() []state.Record {
	return slices.Concat(r.Decisions, r.Checks, r.Notes, r.Notifications)
}

func tells(d state.Record) string {
	text := words[d.Kind] + said(d.Text, d.Reason)
	if d.Kind == state.Note && d.Host != "" {
		text = d.Host + ": " + text
	}
	return text
}

var stepMark = map[state.StepStatus]string{
	state.StatusDone: "✓", state.StatusFailed: "✗", state.StatusSkipped: "–", state.StatusUndone: "↩",
}

// showStep is a step's line; why it failed has lines of its own, and so has
// what does not fit.
func (s *Streams) showStep(st state.StepState, names, hosts int) string {
	m := stepMark[st.Status]
	if m == "" {
		m = "…"
	}
	took := ""
	if st.Elapsed >= 0.05 {
		took = Duration(st.Elapsed)
	}
	lead := fmt.Sprintf("  %s %s  %s  %s %s", s.sym(m, 4), pad(fit(stepName(st), names), names), pad(st.Host, hosts), pad(string(st.Status), 8), left(took, tookWidth))
	wrong := st.Status == state.StatusFailed || st.Status == state.StatusUndoFailed
	text := said(st.Text, st.Reason)
	if !wrong {
		text = brief(firstLine(text))
	}
	if !wrong && width(s.text(lead))+2+width(s.text(text)) <= s.Width {
		return s.wrap(lead+"  ", text)
	}
	out := strings.TrimRight(lead, " ") + "\n"
	for line := range strings.Lines(text) {
		out += s.wrap("      ", line)
	}
	return out
}

// stepName is a step's key without phase and host.
func stepName(st state.StepState) string {
	name, _, _ := strings.Cut(st.Key, "@")
	_, name, _ = strings.Cut(name, "/")
	return name
}

// JSONDoc prints a value as indented JSON: the machine's form of a result.
func (s *Streams) JSONDoc(v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.Notef("internal error: cannot encode: %v\n", err)
		return
	}
	s.Verbatim(append(b, '\n'))
}

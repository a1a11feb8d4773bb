package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// Human shows a run's events as lines, and on a terminal what runs now below them.
type Human struct {
	*Streams
	Zone *time.Location

	texts map[string]string // step key → what the plan says of it
	names int               // columns of the longest step name
	hosts int               // columns of the longest host name
	live  *live
}

// NewHuman makes a view of events for people.
func NewHuman(s *Streams, zone *time.Location) *Human {
	h := &Human{Streams: s, Zone: zone, texts: map[string]string{}, names: 18, hosts: 4}
	if s.TTY && !s.Quiet {
		h.live = newLive(s)
		s.live.Store(h.live)
	}
	return h
}

// Planned gives the words of the plan's steps.
func (h *Human) Planned(p *phases.Plan) {
	for _, ph := range p.Phases {
		for _, s := range ph.Steps {
			h.texts[s.Key] = s.Text
			h.names = min(max(h.names, width(ph.Name+"/"+s.Name)), max(24, h.Width*3/10))
			h.hosts = max(h.hosts, width(s.Host))
		}
	}
}

// Close ends the live line.
func (h *Human) Close() {
	if h.live != nil {
		h.live.close()
	}
}

// Event implements phases.Sink.
func (h *Human) Event(rec state.Record) {
	if rec.Kind == state.StepProgress {
		h.progress(rec)
		return
	}
	line := h.line(rec)
	if line == "" || h.Quiet {
		return
	}
	h.print(line)
}

func (h *Human) print(line string) {
	if h.live != nil {
		h.live.above(line)
		return
	}
	h.Notef("%s\n", line)
}

// progress feeds the live line; without one, only a step that is slow is shown
// to be alive.
func (h *Human) progress(rec state.Record) {
	switch {
	case h.live != nil:
		h.live.now(h.text(Clean(strings.Join(strings.Fields(place(rec)+" "+rec.Text), " "))), rec.Elapsed)
	case !h.Quiet && rec.Text == "still running":
		h.print(h.row(rec, [2]string{"…", dim}, rec.Text, true))
	}
}

func (h *Human) clock(t time.Time) string { return t.In(h.Zone).Format("15:04:05") }

func place(rec state.Record) string {
	name, _, _ := strings.Cut(rec.Step, "@")
	if name == "" {
		name = rec.Phase
	}
	switch {
	case name == "": // while planning the text says where
		return ""
	case rec.Host != "":
		name += " on " + rec.Host
	}
	if rec.Text != "" {
		name += ":"
	}
	return name
}

// mark is the symbol of a kind of event and its style.
var mark = map[state.Kind][2]string{
	state.StepDone:     {"✓", green},
	state.StepFailed:   {"✗", red},
	state.StepSkipped:  {"–", dim},
	state.StepWaiting:  {"⏸", yellow},
	state.StepRetry:    {"…", yellow},
	state.UndoIntent:   {"↩", yellow},
	state.UndoDone:     {"↩", green},
	state.UndoFailed:   {"✗", red},
	state.Decision:     {"✓", green},
	state.Check:        {"!", yellow},
	state.Notified:     {"•", dim},
	state.NotifyFailed: {"!", yellow},
	state.Note:         {"•", dim},
	state.Repaired:     {"!", yellow},
}

// words name what happened, so that no meaning hangs on a symbol.
var words = map[state.Kind]string{
	state.StepFailed: "failed: ", state.StepSkipped: "skipped: ", state.StepWaiting: "waiting: ", state.StepRetry: "again: ",
	state.UndoIntent: "begins: ", state.UndoFailed: "failed: ", state.NotifyFailed: "not notified: ",
}

func (h *Human) line(rec state.Record) string {
	if rec.Kind == state.RunCreated {
		return h.created(rec)
	}
	m, ok := mark[rec.Kind]
	if !ok {
		return ""
	}
	text := rec.Text
	if text == "" && rec.Kind == state.StepDone {
		text = h.texts[rec.Step]
	}
	planned := rec.Kind == state.StepDone || rec.Kind == state.UndoDone && !strings.HasPrefix(text, "verified")
	return h.row(rec, m, words[rec.Kind]+brief(firstLine(said(text, rec.Reason))), planned)
}

// said puts what happened and why into one line.
func said(text, reason string) string {
	if text == "" || reason == "" {
		return text + reason
	}
	return text + " (" + reason + ")"
}

// created is the first line of a run: the id is what all other commands ask for.
func (h *Human) created(rec state.Record) string {
	var c state.Created
	if json.Unmarshal(rec.Data, &c) != nil {
		return ""
	}
	for _, host := range c.Hosts {
		h.hosts = max(h.hosts, width(host))
	}
	what := c.Runbook
	if c.Undoes != "" {
		what = "rolls back run " + c.Undoes
	}
	return strings.TrimRight(fmt.Sprintf("%s %s run %s  %s", h.style(dim, h.clock(rec.Time)), h.sym("•", 4), rec.Run, Clean(what)), " ")
}

// tookWidth is the column of durations.
const tookWidth = 7

// row is one line: when, how, which step, where, what, how long. What the
// plan or the recipe said before is cut to fit a terminal; what is news never is.
func (h *Human) row(rec state.Record, m [2]string, text string, cut bool) string {
	head := fmt.Sprintf("%s %s %s", h.style(dim, h.clock(rec.Time)), h.style(m[1], h.sym(m[0], 4)), h.columns(rec))
	room := max(h.Width-1-width(head)-1-tookWidth, 16)
	body := h.text(Clean(text))
	if cut && !h.Log {
		body = fit(body, room)
		if h.ASCII && strings.HasSuffix(body, "…") {
			body = fit(body, room-2)
		}
	}
	if rec.Elapsed < 0.05 {
		return strings.TrimRight(head+h.text(body), " ")
	}
	took := Duration(rec.Elapsed)
	gap := max(min(room, 60)+1+tookWidth-width(h.text(body))-width(took), 2)
	return head + h.text(body) + strings.Repeat(" ", gap) + h.style(dim, took)
}

func (h *Human) columns(rec state.Record) string {
	name, _, _ := strings.Cut(rec.Step, "@")
	if name == "" {
		name = rec.Phase
	}
	switch {
	case name == "" && rec.Host == "":
		return ""
	case name == "":
		return rec.Host + ": "
	}
	return pad(fit(name, h.names), h.names) + " " + pad(rec.Host, h.hosts) + "  "
}

func firstLine(t string) string {
	first, _, _ := strings.Cut(t, "\n")
	return first
}

// JSON writes every event as one line.
type JSON struct {
	W  io.Writer
	mu sync.Mutex
}

// Event implements phases.Sink.
func (j *JSON) Event(rec state.Record) {
	rec.Prev = ""
	b, err := json.Marshal(rec)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.W.Write(append(b, '\n'))
}

package simulation

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases"
)

// world is two hosts, the ways to them, and a controller.
type world struct {
	dir      string
	scenario *scenario
	machines []*machine

	mu      sync.Mutex
	count   map[string]int
	trace   []string // the points that were passed, in order
	plan    []crash  // what is still to be killed
	wrong   []string // what must not happen in any world
	logs    []string
	drop    string // mutation: the syncs that are left out, by the start of their label
	lax     string // mutation: the processes that leave a check out, and which
	now     *controller
	old     []*controller // those that were paused, and taken over from
	plan0   *phases.Plan  // what the run is to do
	tries   int
	gone    bool // the plugin died
	stalled bool

	records records
	kept    []string    // records of the run that the journal has
	record  bool        // find what could be killed
	found   []candidate // that
}

// crash is one kill at one point.
type crash struct {
	at   string // the point's name
	what string // controller, power, process, link
	host string // whose power, process or link
	cut  cut    // of power
	away time.Duration
}

func (c crash) String() string {
	text := c.what
	if c.host != "" {
		text += " of " + c.host
	}
	if c.cut != "" {
		text += " (" + string(c.cut) + " survives)"
	}
	if c.away > 0 {
		text += " for " + c.away.String()
	}
	return text + " at " + c.at
}

// candidate is a kill, and the world after it.
type candidate struct {
	crash
	like likeness
}

var tokens = regexp.MustCompile(`\.new\.[A-Z0-9]+|-apply-[A-Z0-9]+`)

// nameless takes out of a name what differs from world to world.
func nameless(name string) string {
	if !strings.Contains(name, ".new.") && !strings.Contains(name, "-apply-") && !strings.Contains(name, "-guard-") {
		return name
	}
	return tokens.ReplaceAllStringFunc(name, func(s string) string {
		if strings.HasPrefix(s, ".new") {
			return ".new"
		}
		return "-apply"
	})
}

// point is passed by whoever comes there: its name is stable from world to world.
func (w *world) point(who, label string, p *process) {
	key := who + ": " + nameless(label)
	w.mu.Lock()
	w.count[key]++
	name := fmt.Sprintf("%s #%d", key, w.count[key])
	w.trace = append(w.trace, name)
	if p == nil && w.now != nil {
		w.now.last = key
	}
	var k *crash
	if len(w.plan) > 0 && w.plan[0].at == name {
		k = &w.plan[0]
		w.plan = w.plan[1:]
	}
	w.mu.Unlock()
	switch name {
	case w.scenario.stopAt:
		close(w.now.stop)
	case w.scenario.abortAt:
		w.now.cancel()
	}
	if w.record && len(w.plan) == 0 && k == nil {
		for _, c := range crashes(name, p) {
			w.found = append(w.found, candidate{c, w.like(c, p)})
		}
	}
	if k != nil {
		w.logf("killed: %s", k)
		w.kill(*k, p)
	}
}

func (w *world) kill(k crash, p *process) {
	switch k.what {
	case "controller":
		w.controller().kill(k.cut)
	case "pause":
		w.controller().pause(true)
	case "sleep": // a laptop that is closed for a while
		c := w.controller()
		c.pause(false)
		time.AfterFunc(k.away, c.wake)
	case "power":
		w.machine(k.host).crash(k.cut)
	case "link":
		w.machine(k.host).link.cut(k.away)
	case "stall": // SIGSTOP, or a host that is slow
		w.mu.Lock()
		w.stalled = true
		w.mu.Unlock()
		time.Sleep(k.away)
	case "plugin":
		w.mu.Lock()
		w.gone = true
		w.mu.Unlock()
	case "process":
		if p == nil {
			w.fail("there is no process at %s", k.at)
			return
		}
		p.kill()
	}
}

func (w *world) controller() *controller {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) machine(name string) *machine {
	for _, m := range w.machines {
		if m.name == name {
			return m
		}
	}
	panic("no machine " + name)
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs = append(w.logs, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// end kills what still lives, so that its goroutines run out.
func (w *world) end() {
	if c := w.controller(); c != nil {
		c.kill("")
	}
	for _, m := range w.machines {
		m.off(all)
	}
	time.Sleep(24 * time.Hour)
}

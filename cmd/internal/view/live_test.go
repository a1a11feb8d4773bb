package view

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/state"
)

// screen is a terminal: it keeps when it was written to, and what one would see.
type screen struct {
	mu     sync.Mutex
	writes []time.Time
	lines  []string // the last one is where the cursor is
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, time.Now())
	for rest := string(b); rest != ""; {
		if len(s.lines) == 0 {
			s.lines = []string{""}
		}
		last := &s.lines[len(s.lines)-1]
		switch {
		case strings.HasPrefix(rest, "\r\x1b[K"):
			*last, rest = "", rest[len("\r\x1b[K"):]
		case rest[0] == '\n':
			s.lines, rest = append(s.lines, ""), rest[1:]
		default:
			*last, rest = *last+rest[:1], rest[1:]
		}
	}
	return len(b), nil
}

func (s *screen) show() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// redraws are the most writes within any second.
func (s *screen) redraws() (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, from := range s.writes {
		n := 0
		for _, t := range s.writes[i:] {
			if t.Sub(from) < time.Second {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func onTTY(scr *screen) *Human {
	h := NewHuman(&Streams{Out: scr, Err: scr, TTY: true, Width: 60}, time.UTC)
	h.Planned(thePlan())
	return h
}

func progress(text string) state.Record {
	return state.Record{Kind: state.StepProgress, Phase: "switch", Step: "switch/test@production", Host: "production", Text: text}
}

func TestTheLiveLineIsRedrawnAtMostFiveTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scr := &screen{}
		h := onTTY(scr)
		for i := range 1000 { // for ten seconds
			h.Event(progress(fmt.Sprintf("%d units to go", 1000-i)))
			time.Sleep(10 * time.Millisecond)
		}
		if n := scr.redraws(); n > 5 || n < 4 {
			t.Errorf("%d redraws within a second", n)
		}
		h.Close()
		if scr.show() != "" {
			t.Errorf("it stays: %q", scr.show())
		}
	})
}

func TestTheLiveLineIsBelowTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scr := &screen{}
		h := onTTY(scr)
		h.Event(progress("starting app.service"))
		time.Sleep(3100 * time.Millisecond)
		if got, want := scr.show(), "switch/test on production: starting app.service  3.0s"; got != want {
			t.Errorf("shows %q, want %q", got, want)
		}
		done := state.Record{Kind: state.StepDone, Phase: "switch", Step: "switch/test@production", Host: "production", Time: start, Elapsed: 3.1}
		h.Event(done)
		if got := scr.show(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "3.1s\n") || !strings.HasPrefix(got, "02:04:00 ✓ switch/test") {
			t.Errorf("shows %q", got)
		}
		h.Event(progress("a text that is much longer than the sixty columns of this terminal"))
		time.Sleep(1050 * time.Millisecond)
		lines := strings.Split(scr.show(), "\n")
		if last := lines[len(lines)-1]; width(last) >= 60 || last == "" {
			t.Errorf("would wrap: %q", last)
		}
		h.Pause()
		if got := scr.show(); !strings.HasSuffix(got, "\n") {
			t.Errorf("a prompt would stand behind it: %q", got)
		}
		h.Event(progress("again"))
		time.Sleep(time.Second)
		h.Event(done)
		h.Close()
		if got := scr.show(); strings.Count(got, "\n") != 2 || strings.Contains(got, "again") {
			t.Errorf("the final state is not left: %q", got)
		}
	})
}

// TestANoteStandsAboveTheLiveLine: what is said meanwhile (a Ctrl-C's answer)
// does not run into it.
func TestANoteStandsAboveTheLiveLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scr := &screen{}
		h := onTTY(scr)
		h.Event(progress("working"))
		time.Sleep(1050 * time.Millisecond) // between two redraws
		h.Notef("stopping after this step\n")
		time.Sleep(time.Second)
		if got, want := scr.show(), "stopping after this step\nswitch/test on production: working  2.0s"; got != want {
			t.Errorf("shows %q, want %q", got, want)
		}
		h.Close()
		if got := scr.show(); got != "stopping after this step\n" {
			t.Errorf("leaves %q", got)
		}
	})
}

// TestPlanningSaysWhereItLooks once, not twice.
func TestPlanningSaysWhereItLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scr := &screen{}
		h := onTTY(scr)
		h.Event(state.Record{Kind: state.StepProgress, Host: "staging", Text: "looking at staging"})
		time.Sleep(550 * time.Millisecond)
		if got := scr.show(); got != "looking at staging" {
			t.Errorf("shows %q", got)
		}
		h.Close()
	})
}

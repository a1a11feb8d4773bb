package view

import (
	"fmt"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// live is the one line below the others that shows what runs now. Nothing else
// on the terminal is ever redrawn, so the scrollback stays what it was.
type live struct {
	s     *Streams
	mu    sync.Mutex
	what  string
	since time.Time
	drawn bool
	done  chan struct{}
	once  sync.Once
	ended sync.WaitGroup
}

// redraw is five times a second.
const redraw = 200 * time.Millisecond

// erase clears the line that the cursor is in.
const erase = "\r\x1b[K"

func newLive(s *Streams) *live {
	l := &live{s: s, done: make(chan struct{})}
	l.ended.Add(1)
	go l.loop()
	return l
}

func (l *live) loop() {
	defer l.ended.Done()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-tick.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

func (l *live) now(what string, elapsed float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.what, l.since = what, time.Now().Add(-time.Duration(elapsed*float64(time.Second)))
}

// above prints a line that stays.
func (l *live) above(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	fmt.Fprintln(l.s.Err, l.s.safe(line))
	l.what = ""
}

func (l *live) draw() {
	if l.what == "" {
		return
	}
	line := l.what
	if sec := time.Since(l.since).Seconds(); sec >= 1 {
		line += "  " + Duration(sec)
	}
	fmt.Fprint(l.s.Err, erase+l.s.style(cyan, fit(line, l.s.Width-1)))
	l.drawn = true
}

func (l *live) erase() {
	if l.drawn {
		fmt.Fprint(l.s.Err, erase)
		l.drawn = false
	}
}

// pause takes the line away, for a prompt.
func (l *live) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	l.what = ""
}

// close takes the line away for good; more than once does no harm.
func (l *live) close() {
	l.once.Do(func() { close(l.done) })
	l.ended.Wait()
	l.pause()
}

func width(t string) int { return ansi.StringWidth(t) }

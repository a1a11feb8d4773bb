package simulation

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/hbohlen/deployer/state"
)

// journal is the run's, with a point before and after each record.
type journal struct {
	c *controller
	*state.Journal
}

func (j journal) Append(rec *state.Record) error {
	label := strings.TrimSpace("journal " + string(rec.Kind) + " " + cmp.Or(rec.Step, rec.Host))
	j.c.point(label)
	if err := j.c.alive(); err != nil {
		return err
	}
	if err := j.Journal.Append(rec); err != nil {
		return err
	}
	if rec.Kind == state.UndoFailed {
		j.c.w.logf("undo failed: %s", rec.Reason)
	}
	j.c.w.mu.Lock()
	j.c.w.records.add(*rec)
	if rec.Run == runID {
		j.c.w.kept = append(j.c.w.kept, fmt.Sprint(rec.Epoch, rec.Seq, rec.Kind))
	}
	j.c.w.mu.Unlock()
	j.c.point(label + " durable")
	return j.c.alive()
}

// paper is the journal's file: it knows what is on the platter, and takes no
// more from a controller that is dead.
type paper struct {
	state.File
	c *controller

	mu             sync.Mutex
	length, synced int64
}

func (c *controller) wrap(j *state.Journal) journal {
	j.Wrap(func(f state.File) state.File {
		info, err := f.(*os.File).Stat()
		check(err)
		p := &paper{File: f, c: c, length: info.Size(), synced: info.Size()}
		c.papers = append(c.papers, p)
		return p
	})
	return journal{c, j}
}

func (p *paper) Write(b []byte) (int, error) {
	if err := p.c.alive(); err != nil {
		return 0, err
	}
	n, err := p.File.Write(b)
	p.mu.Lock()
	p.length += int64(n)
	p.mu.Unlock()
	return n, err
}

func (p *paper) Sync() error {
	p.c.point("journal sync")
	if err := p.c.alive(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c.w.syncs("journal sync", "") {
		p.synced = p.length
	}
	return nil
}

func (p *paper) Truncate(size int64) error {
	if err := p.c.alive(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.length, p.synced = size, min(p.synced, size)
	return p.File.Truncate(size)
}

// crash is what a power cut of the controller's machine leaves.
func (p *paper) crash(c cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	check(p.File.Truncate(p.after(c)))
}

func (p *paper) after(c cut) int64 {
	switch c {
	case nothing, names:
		return p.synced
	case torn:
		return p.synced + (p.length-p.synced)/2
	}
	return p.length
}

// unsynced is what a power cut takes from the journal.
func (c *controller) unsynced(k cut) (l likeness) {
	for _, p := range c.papers {
		p.mu.Lock()
		l += likeness(p.length - p.after(k))
		p.mu.Unlock()
	}
	return min(l, 2)
}

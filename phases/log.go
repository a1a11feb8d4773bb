package phases

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hbohlen/deployer/state"
)

// Sink receives every event of a run, in order: the view, the JSON stream, the
// notifiers. It must not block.
type Sink interface {
	Event(rec state.Record)
}

var errFull = errors.New("the disk is full")

// Journal makes records durable. *state.Journal is one.
type Journal interface {
	Append(rec *state.Record) error
}

// Log is where a run says what happens: durable first, then shown. It is the
// only way from the engine to the outside.
type Log struct {
	Run     string
	Journal Journal // nil: a plan, nothing is kept
	Sinks   []Sink
	Now     func() time.Time

	order  sync.Mutex // one record at a time, for sinks see them in the journal's order
	mu     sync.Mutex
	broken error
}

// Record journals rec, if its kind is kept, and shows it. The error is the
// journal's: after one, no new work may start.
func (l *Log) Record(rec state.Record, data any) error {
	if l == nil {
		return nil
	}
	rec.Run = l.Run
	if rec.Time.IsZero() {
		rec.Time = l.now()
	}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("internal error: cannot encode a %s record: %w", rec.Kind, err)
		}
		rec.Data = b
	}
	l.order.Lock()
	defer l.order.Unlock()
	err := l.keep(&rec)
	for _, s := range l.Sinks {
		s.Event(rec)
	}
	return err
}

func (l *Log) now() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now()
}

func (l *Log) keep(rec *state.Record) error {
	if l.Journal == nil || !rec.Kind.Journalled() {
		return nil
	}
	err := l.Journal.Append(rec)
	if err != nil {
		l.mu.Lock()
		l.broken = err
		l.mu.Unlock()
	}
	return err
}

// Broken is the journal's error, if it had one, or that it has no room but what
// is kept for a restore: forward work stops, a restore goes on.
func (l *Log) Broken() error {
	if j, ok := l.Journal.(interface{ Full() bool }); ok && j.Full() {
		return errFull
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

const journalName = "journal.jsonl"

// file is what the journal needs of *os.File.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Journal appends records to a run's journal. It is safe for concurrent use:
// appends that come while an fsync is under way share the next one.
type Journal struct {
	dir string
	f   file

	mu       sync.Mutex
	flushed  *sync.Cond
	flushing bool
	chain    chain  // seq and prev of the last line written
	end      int64  // size of the file
	synced   int64  // how much of it is durable
	pending  []byte // what is written but not yet durable
	secrets  []string
	full     bool
	err      error // the first one that ended this journal
}

// Create makes the journal of a new run in dir, and dir where it is missing.
// It fails where a journal is already, and where there is no room for a run.
func Create(dir string) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("cannot create the journal: %w", err)
	}
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, fmt.Errorf("cannot create the journal: %w", err)
	}
	if err := begin(dir, f); err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("cannot create the journal: %w", err)
	}
	return newJournal(dir, f, chain{path: path}, 0), nil
}

// begin makes what Create made durable, and the journal this process's own.
func begin(dir string, f *os.File) error {
	if err := lock(f); err != nil {
		return err
	}
	if err := layBallast(dir); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDir(dir)
}

func newJournal(dir string, f file, c chain, size int64) *Journal {
	j := &Journal{dir: dir, f: f, chain: c, end: size, synced: size}
	j.flushed = sync.NewCond(&j.mu)
	return j
}

// Append writes rec and returns when it is durable. It fills V, Seq and Prev,
// and Run and Time where they are empty, and redacts it: afterwards rec is
// what a reader will read. Kinds that are only shown are filled and redacted,
// not written.
//
// An error means that rec may or may not be found later. After a write or
// fsync error other than "no space" every further Append fails with it: Close
// the journal and Open it, which reads what is really there.
func (j *Journal) Append(rec *Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.fill(rec); err != nil || !rec.Kind.Journalled() {
		return err
	}
	if j.err != nil {
		return j.err
	}
	rec.Seq, rec.Prev = j.chain.seq+1, j.chain.prev
	line, err := encode(rec)
	if err != nil {
		return err
	}
	if err := j.write(line); err != nil {
		return err
	}
	j.chain.accept(*rec, line[:len(line)-1], j.chain.line+1, false)
	if err := j.durable(j.end); err != nil {
		return err
	}
	if rec.Kind == RunFinished {
		os.Remove(filepath.Join(j.dir, ballastName))
	}
	return nil
}

// fill sets what the caller left open, and brings the rest into the form in
// which it will be read back.
func (j *Journal) fill(rec *Record) error {
	rec.V, rec.Seq, rec.Prev = Schema, 0, ""
	if rec.Time.IsZero() {
		rec.Time = now()
	}
	rec.Time = rec.Time.UTC().Round(0)
	if j.chain.run == "" {
		j.chain.run = filepath.Base(j.dir)
		if rec.Run != "" {
			j.chain.run = rec.Run
		}
	}
	if rec.Run == "" {
		rec.Run = j.chain.run
	}
	if rec.Run != j.chain.run {
		return fmt.Errorf("internal error: a record of run %s in the journal of run %s", rec.Run, j.chain.run)
	}
	return clean(rec, j.secrets)
}

// fail ends the journal.
func (j *Journal) fail(what string, err error) error {
	if j.err == nil {
		j.err = fmt.Errorf("cannot %s the journal: %w; see what is recorded with: deployer status", what, err)
	}
	return j.err
}

// Full tells whether room ran out since the journal was opened: forward work
// has to stop, restoring goes on in what the ballast left.
func (j *Journal) Full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.full
}

// Damage tells what a journal opened by OpenForRestore suffers from, or nil.
func (j *Journal) Damage() *Damage { return j.chain.damage }

// Close waits for appends under way and closes the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.flushing {
		j.flushed.Wait()
	}
	if errors.Is(j.err, os.ErrClosed) {
		return nil
	}
	j.err = errors.Join(os.ErrClosed, j.err)
	return j.f.Close()
}

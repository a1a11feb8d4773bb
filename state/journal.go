package state

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// File is what the journal needs of *os.File.
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Journal appends records to a run's journal. It is safe for concurrent use:
// appends that come while an fsync is under way share the next one.
type Journal struct {
	dir   string
	f     File
	lease *Lease // nil: nobody else can know the run

	mu       sync.Mutex
	flushed  *sync.Cond
	flushing bool
	chain    chain  // where the last line written left it
	end      int64  // size of the file
	synced   int64  // how much of it is durable
	pending  []byte // what is written but not yet durable
	secrets  []string
	full     bool
	err      error // the first one that ended this journal
}

func newJournal(dir string, f File, lease *Lease, c chain, size int64) *Journal {
	j := &Journal{dir: dir, f: f, lease: lease, chain: c, end: size, synced: size}
	j.flushed = sync.NewCond(&j.mu)
	return j
}

// Wrap puts another file between the journal and its own: a disk that fails, or
// that forgets what was not synced.
func (j *Journal) Wrap(wrap func(File) File) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.f = wrap(j.f)
}

// Append writes rec and returns when it is durable. It fills V, Seq, Epoch and
// Prev, and Run and Time where they are empty, and redacts it: afterwards rec is
// what a reader will read. Kinds that are only shown are filled and redacted,
// not written. Once the lease is lost it fails with *Fenced and writes nothing.
//
// It looks for the lease again when rec is durable: whoever takes over later
// than that reads rec, so what is acknowledged always counts. An error means
// that rec may or may not be found later. After a write or
// fsync error other than "no space" every further Append fails with it: Close
// the journal and Open it, which reads what is really there.
func (j *Journal) Append(rec *Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.fill(rec); err != nil || !rec.Kind.Journalled() {
		return err
	}
	if err := cmp.Or(j.err, j.lease.Lost()); err != nil {
		return err
	}
	rec.Seq, rec.Prev = j.chain.seq+1, j.chain.prev
	line, err := encode(rec)
	if err != nil {
		return err
	}
	if err := j.write(line); err != nil {
		return err
	}
	j.chain.accept(*rec, line[:len(line)-1], 0)
	if err := j.durable(j.end); err != nil {
		return err
	}
	if err := j.lease.Lost(); err != nil {
		return err
	}
	if rec.Kind == RunFinished {
		os.Remove(j.ballast())
	}
	return nil
}

// fill sets what the caller left open, and brings the rest into the form in
// which it will be read back.
func (j *Journal) fill(rec *Record) error {
	rec.V, rec.Seq, rec.Epoch, rec.Prev = Schema, 0, j.lease.Epoch(), ""
	if rec.Time.IsZero() {
		rec.Time = now()
	}
	rec.Time = rec.Time.UTC().Round(0)
	if rec.Run == "" {
		rec.Run = j.chain.run
	}
	if rec.Run == "" {
		rec.Run = filepath.Base(j.dir)
	}
	if j.chain.run != "" && rec.Run != j.chain.run {
		return fmt.Errorf("internal error: a record of run %s in the journal of run %s", rec.Run, j.chain.run)
	}
	return clean(rec, j.secrets)
}

// write puts one line at the end; where there is no room it frees the ballast
// and tries once more.
func (j *Journal) write(line []byte) error {
	err := j.put(line)
	if isFull(err) && j.err == nil && j.freeBallast() {
		err = j.put(line)
	}
	switch {
	case err == nil:
		return nil
	case isFull(err) && j.err == nil:
		return fmt.Errorf("cannot write the journal: %w; free some space for %s", err, j.dir)
	}
	return j.fail("write", err)
}

// put makes one write call, and leaves nothing of a line that failed.
func (j *Journal) put(line []byte) error {
	n, err := j.f.Write(line)
	if err == nil {
		j.end += int64(n)
		j.pending = append(j.pending, line...)
		return nil
	}
	if terr := j.f.Truncate(j.end); terr != nil {
		return j.fail("truncate", errors.Join(terr, err))
	}
	return err
}

// durable returns when the first upto bytes are on disk. Whoever comes first
// makes the fsync for all that are written by then; the others wait for it,
// and the first of those it came too late for makes the next.
func (j *Journal) durable(upto int64) error {
	for j.synced < upto && j.err == nil {
		if j.flushing {
			j.flushed.Wait()
		} else {
			j.flush()
		}
	}
	if j.synced >= upto {
		return nil
	}
	return j.err
}

// flush makes one fsync, with the lock given up meanwhile.
func (j *Journal) flush() {
	j.flushing = true
	upto := j.end
	j.mu.Unlock()
	err := j.f.Sync()
	j.mu.Lock()
	if isFull(err) {
		upto, err = j.end, j.rewrite(err)
	}
	if err != nil {
		_ = j.fail("sync", err)
	} else {
		j.pending = append(j.pending[:0], j.pending[upto-j.synced:]...)
		j.synced = upto
	}
	j.flushing = false
	j.flushed.Broadcast()
}

// rewrite answers an fsync that found no room. The kernel may have dropped the
// pages, so a second fsync would prove nothing: the lines are written again.
func (j *Journal) rewrite(cause error) error {
	if !j.freeBallast() {
		return cause
	}
	if err := j.lease.Lost(); err != nil { // who took over has read these lines
		return err
	}
	if err := j.f.Truncate(j.synced); err != nil {
		return err
	}
	if _, err := j.f.Write(j.pending); err != nil {
		return err
	}
	return j.f.Sync()
}

// fail ends the journal.
func (j *Journal) fail(what string, err error) error {
	if j.err == nil {
		j.err = fmt.Errorf("cannot %s the journal: %w; see what is recorded with: deployer status", what, err)
	}
	return j.err
}

// layBallast keeps room for a restore. The bytes are random, so that no file
// system compresses, shares or leaves them out.
func layBallast(dir string) error {
	path := filepath.Join(dir, "ballast")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	data := make([]byte, 1<<20)
	rand.Read(data)
	if err := WriteFile(path, data); err != nil {
		return fmt.Errorf("no room for the 1 MiB that is kept for a restore: %w; free some space", err)
	}
	return nil
}

func (j *Journal) ballast() string { return filepath.Join(j.dir, "ballast") }

// freeBallast gives the room back, and tells whether there was any.
func (j *Journal) freeBallast() bool {
	j.full = true
	if err := os.Remove(j.ballast()); err != nil {
		return false
	}
	_ = syncDir(j.dir) // some file systems free only with the next commit
	return true
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

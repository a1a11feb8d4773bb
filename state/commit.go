package state

import (
	"errors"
	"fmt"
)

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
	if isFull(err) {
		j.full = true
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
			continue
		}
		j.flush()
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
		j.fail("sync", err)
	} else {
		j.settle(upto)
	}
	j.flushing = false
	j.flushed.Broadcast()
}

func (j *Journal) settle(upto int64) {
	j.pending = append(j.pending[:0], j.pending[upto-j.synced:]...)
	j.synced = upto
}

// rewrite answers an fsync that found no room. The kernel may have dropped the
// pages, so a second fsync would prove nothing: the lines are written again.
func (j *Journal) rewrite(cause error) error {
	j.full = true
	if !j.freeBallast() {
		return cause
	}
	if err := j.f.Truncate(j.synced); err != nil {
		return err
	}
	if _, err := j.f.Write(j.pending); err != nil {
		return err
	}
	return j.f.Sync()
}

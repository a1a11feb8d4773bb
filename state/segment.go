package state

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// segment is the part of a journal that one epoch wrote.
type segment struct {
	chain
	recs   []Record
	hashes []string // of their lines
	size   int64    // up to the last line that is a record
	tail   []byte   // behind that: torn, or still being written
}

func segmentPath(dir string, epoch uint64) string {
	if epoch <= 1 {
		return filepath.Join(dir, "journal.jsonl")
	}
	return filepath.Join(dir, fmt.Sprintf("journal-%d.jsonl", epoch))
}

// scan reads a segment. Where it goes on from is what its first record says:
// join finds out whether that is there.
func (s *segment) scan(data []byte) {
	bad := 0 // the first of the lines just before that are no records
	var why error
	at := 0
	for line := 1; ; line++ {
		text, _, whole := bytes.Cut(data[at:], []byte("\n"))
		if !whole {
			s.tail = data[s.size:]
			return
		}
		at += len(text) + 1
		rec, err := decode(text)
		if err != nil {
			if bad == 0 {
				bad, why = line, err
			}
			continue
		}
		if len(s.recs) == 0 {
			s.seq, s.prev, s.gaps = max(rec.Seq, 1)-1, rec.Prev, rec.Kind == Rebuilt
		}
		if bad > 0 {
			s.hurt(s.seq+1, bad, "%v", why)
		}
		if s.accept(rec, text, line) {
			s.recs, s.hashes = append(s.recs, rec), append(s.hashes, s.prev)
		}
		bad, s.size = 0, int64(at)
	}
}

// below counts the records that are numbered below seq.
func (s *segment) below(seq uint64) int {
	n, _ := slices.BinarySearchFunc(s.recs, seq, func(rec Record, seq uint64) int { return cmp.Compare(rec.Seq, seq) })
	return n
}

// origin finds what s goes on from: in which of the older segments, and how
// many records of that its writer saw.
func (s *segment) origin(older []*segment) (at, n int) {
	first, near, nearN, missing := s.recs[0], -1, 0, uint64(1)
	for i, o := range slices.Backward(older) {
		n := o.below(first.Seq)
		if n > 0 && o.hashes[n-1] == first.Prev {
			return i, n
		}
		if n > 0 && near < 0 {
			near, nearN, missing = i, n, o.recs[n-1].Seq+1
		}
	}
	switch {
	case first.Prev == "" && first.Seq <= 1:
		return -1, 0
	case first.Seq > missing:
		s.hurt(first.Seq, 1, "record %d is missing", missing)
	default:
		s.hurt(first.Seq, 1, "it does not follow the record before it")
	}
	return near, nearN
}

// history is a journal as all its segments tell it.
type history struct {
	segs []*segment // oldest first
	last int        // the segment that it ends in
	recs []Record
	late int // records that do not count
	chain
}

// read takes the youngest segment first: by then, what that goes on from is in
// the older ones.
func read(dir string) (*history, error) {
	files, err := byEpoch(dir, segmentName)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, &os.PathError{Op: "open", Path: segmentPath(dir, 1), Err: os.ErrNotExist}
	}
	h := &history{segs: make([]*segment, len(files))}
	for i, file := range slices.Backward(files) {
		data, err := os.ReadFile(file.path)
		if err != nil {
			return nil, err
		}
		h.segs[i] = &segment{chain: chain{path: file.path}}
		h.segs[i].scan(data)
		h.late += len(h.segs[i].recs)
	}
	h.join()
	return h, nil
}

// join follows the chain from the youngest record back. What no younger segment
// goes on from came from a process that had been taken over from, after that:
// neither it nor what is wrong with it counts.
func (h *history) join() {
	i := len(h.segs) - 1
	for i > 0 && len(h.segs[i].recs) == 0 {
		i--
	}
	h.last, h.chain = i, h.segs[i].chain
	var parts [][]Record
	cut := uint64(math.MaxUint64)
	for n := len(h.segs[i].recs); n > 0; {
		s := h.segs[i]
		parts = append(parts, s.recs[:n])
		if i, n = s.origin(h.segs[:i]); s.damage != nil && s.damage.seq < cut {
			h.damage = s.damage
		}
		cut = s.recs[0].Seq
	}
	slices.Reverse(parts)
	h.recs = slices.Concat(parts...)
	h.late -= len(h.recs)
}

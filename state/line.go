package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// A line is sum, space, JSON, newline; sum covers the JSON, and the next
// record's Prev covers sum, space and JSON.
const sumLen = 16

func hash(b []byte, digits int) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])[:digits]
}

// encode returns the line of rec, with its newline.
func encode(rec *Record) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(rec); err != nil {
		return nil, fmt.Errorf("cannot encode a %s record: %w", rec.Kind, err)
	}
	text := bytes.TrimSuffix(body.Bytes(), []byte("\n"))
	return fmt.Appendf(nil, "%s %s\n", hash(text, sumLen), text), nil
}

// decode reads a line without its newline.
func decode(line []byte) (rec Record, err error) {
	if len(line) <= sumLen || line[sumLen] != ' ' {
		return rec, errors.New("not a record")
	}
	text := line[sumLen+1:]
	if hash(text, sumLen) != string(line[:sumLen]) {
		return rec, errors.New("checksum does not match")
	}
	return rec, json.Unmarshal(text, &rec)
}

// Damage is what cannot have come from a crash: a bad line with a good one
// after it, or a line out of its chain. It stops forward work, never a restore.
type Damage struct {
	seq    uint64 // of the record it is at, or before
	Line   int    // 1 is the first
	Reason string // for a person
	Path   string // the journal
}

func (d *Damage) Error() string {
	return fmt.Sprintf("cannot go on: %s is damaged at line %d: %s; what was changed can still be undone with: deployer rollback",
		d.Path, d.Line, d.Reason)
}

// chain is how far a journal goes, and what must come next.
type chain struct {
	path   string
	run    string
	seq    uint64
	prev   string
	gaps   bool    // rebuilt: what no host kept is missing
	damage *Damage // the first one met
}

func (c *chain) hurt(seq uint64, line int, format string, args ...any) {
	if c.damage == nil {
		c.damage = &Damage{seq: seq, Line: line, Reason: fmt.Sprintf(format, args...), Path: c.path}
	}
}

// accept moves the chain on by one record and tells whether it is news: a
// repeated or foreign record is damage, and is not handed on.
func (c *chain) accept(rec Record, text []byte, line int) bool {
	if c.run == "" {
		c.run = rec.Run
	}
	first := rec.Kind == Rebuilt && c.prev == ""
	if rec.Run != c.run || rec.Seq <= c.seq && !first {
		c.hurt(min(rec.Seq, c.seq+1), line, "record %d of run %s comes after record %d of run %s", rec.Seq, rec.Run, c.seq, c.run)
		return false
	}
	switch {
	case rec.Seq != c.seq+1 && !c.gaps:
		c.hurt(c.seq+1, line, "record %d is missing", c.seq+1)
	case rec.Prev != c.prev:
		c.hurt(rec.Seq, line, "it does not follow the line before it")
	}
	c.seq, c.prev = rec.Seq, hash(text, 32)
	return true
}

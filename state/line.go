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

// chained is what the record after line carries as its Prev.
func chained(line []byte) string { return hash(line, 32) }

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
func decode(line []byte) (Record, error) {
	var rec Record
	if len(line) <= sumLen || line[sumLen] != ' ' {
		return rec, errors.New("not a record")
	}
	text := line[sumLen+1:]
	if hash(text, sumLen) != string(line[:sumLen]) {
		return rec, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, fmt.Errorf("not a record: %w", err)
	}
	return rec, nil
}

// Damage is what cannot have come from a crash: a bad line with a good one
// after it, or a line out of its chain. It stops forward work, never a restore.
type Damage struct {
	Line   int    // 1 is the first
	Reason string // for a person
	Path   string // the journal
}

func (d *Damage) Error() string {
	return fmt.Sprintf("cannot go on: %s is damaged at line %d: %s; what was changed can still be undone with: deployer rollback",
		d.Path, d.Line, d.Reason)
}

// chain is how far a reader has come, and what it expects next.
type chain struct {
	path   string
	line   int
	seq    uint64
	prev   string
	run    string
	damage *Damage // the first one met
}

func (c *chain) hurt(line int, reason string) {
	if c.damage == nil {
		c.damage = &Damage{Line: line, Reason: reason, Path: c.path}
	}
}

// scan reads what follows, up to the last line that is a record. good is the
// length of that; what lies behind it is a torn tail, or still being written.
func (c *chain) scan(data []byte) (recs []Record, good int) {
	bad, reason, line := 0, "", c.line
	for at := 0; ; {
		n := bytes.IndexByte(data[at:], '\n')
		if n < 0 {
			return recs, good
		}
		text := data[at : at+n]
		at += n + 1
		line++
		rec, err := decode(text)
		switch {
		case err != nil && bad == 0:
			bad, reason = line, err.Error()
			continue
		case err != nil:
			continue
		case bad > 0:
			c.hurt(bad, reason)
		}
		if c.accept(rec, text, line, bad > 0) {
			recs = append(recs, rec)
		}
		bad, good = 0, at
	}
}

// accept moves the chain on by one record and tells whether it is news: a
// repeated or foreign record is damage, and is not handed on.
func (c *chain) accept(rec Record, text []byte, line int, afterGap bool) bool {
	if c.run == "" {
		c.run = rec.Run
	}
	foreign, repeated := rec.Run != c.run, rec.Seq <= c.seq
	switch {
	case foreign:
		c.hurt(line, "a record of run "+rec.Run)
	case repeated:
		c.hurt(line, fmt.Sprintf("record %d comes after record %d", rec.Seq, c.seq))
	case !afterGap && rec.Seq != c.seq+1:
		c.hurt(line, fmt.Sprintf("record %d is missing", c.seq+1))
	case !afterGap && rec.Prev != c.prev:
		c.hurt(line, "it does not follow the line before it")
	}
	c.line, c.prev = line, chained(text)
	if foreign || repeated {
		return false
	}
	c.seq = rec.Seq
	return true
}

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
	damage *Damage // the first one met
}

func (c *chain) hurt(line int, format string, args ...any) {
	if c.damage == nil {
		c.damage = &Damage{Line: line, Reason: fmt.Sprintf(format, args...), Path: c.path}
	}
}

// scan reads a journal up to the last line that is a record. good is the
// length of that; what lies behind it is a torn tail, or still being written.
func (c *chain) scan(data []byte) (recs []Record, good int) {
	bad, at := 0, 0 // the first of the lines just before that are no records
	var why error
	for line := 1; ; line++ {
		text, _, whole := bytes.Cut(data[at:], []byte("\n"))
		if !whole {
			return recs, good
		}
		at += len(text) + 1
		rec, err := decode(text)
		if err != nil {
			if bad == 0 {
				bad, why = line, err
			}
			continue
		}
		if bad > 0 {
			c.hurt(bad, "%v", why)
		}
		if c.accept(rec, text, line) {
			recs = append(recs, rec)
		}
		bad, good = 0, at
	}
}

// accept moves the chain on by one record and tells whether it is news: a
// repeated or foreign record is damage, and is not handed on.
func (c *chain) accept(rec Record, text []byte, line int) bool {
	if c.run == "" {
		c.run = rec.Run
	}
	news := rec.Run == c.run && rec.Seq > c.seq
	switch {
	case !news:
		c.hurt(line, "record %d of run %s comes after record %d of run %s", rec.Seq, rec.Run, c.seq, c.run)
	case rec.Seq != c.seq+1:
		c.hurt(line, "record %d is missing", c.seq+1)
	case rec.Prev != c.prev:
		c.hurt(line, "it does not follow the line before it")
	}
	c.prev = hash(text, 32)
	if news {
		c.seq = rec.Seq
	}
	return news
}

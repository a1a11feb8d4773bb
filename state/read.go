package state

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// pollEvery is how often Follow looks.
const pollEvery = 100 * time.Millisecond

// Read returns what the journal in dir holds. It never writes, and may be
// called while a run writes; a line that is not whole yet is left out. Where
// the journal is damaged it returns what is readable before and after that,
// and says where.
func Read(dir string) ([]Record, *Damage, error) {
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	c := chain{path: path}
	recs, _ := c.scan(data)
	return recs, c.damage, nil
}

// Follow calls fn with each record of the journal in dir, those to come
// included, until fn returns false (then the error is nil), ctx ends or the
// journal turns out to be damaged.
func Follow(ctx context.Context, dir string, fn func(Record) bool) error {
	path := filepath.Join(dir, journalName)
	c, at := chain{path: path}, int64(0)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		data, err := readFrom(path, at)
		if err != nil {
			return fmt.Errorf("cannot read the journal: %w", err)
		}
		recs, good := c.scan(data)
		at += int64(good)
		for _, rec := range recs {
			if !fn(rec) {
				return nil
			}
		}
		if c.damage != nil {
			return c.damage
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func readFrom(path string, at int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

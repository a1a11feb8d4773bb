package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Rebuild makes the folder of a run that this machine has no journal of, from
// the lines that its hosts kept, by host: each line is a record as JSON. They
// may be torn, doubled, out of order, and incomplete. Of two records with one
// number the one of the higher epoch counts: an old controller wrote the other.
// Numbers stay, so that it can be done again from what is written from here on.
func (s *Store) Rebuild(id string, kept map[string][][]byte, plan []byte) (*RunDir, error) {
	d := s.dir(id)
	if err := d.rebuild(kept, plan); err != nil {
		return nil, fmt.Errorf("cannot rebuild run %s: %w", id, err)
	}
	return d, nil
}

func (d *RunDir) rebuild(kept map[string][][]byte, plan []byte) error {
	if !isID(d.ID) {
		return errors.New("that is no id of a run")
	}
	recs := union(d.ID, kept)
	if len(recs) == 0 {
		return errors.New("no host kept a record of it")
	}
	journal, epoch, err := chained(append([]Record{d.from(kept, recs)}, recs...))
	if err != nil {
		return err
	}
	if err := d.make(); err != nil {
		return err
	}
	if there, err := byEpoch(d.Path, segmentName); err != nil || len(there) > 0 {
		return cmp.Or(err, os.ErrExist)
	}
	if len(plan) > 0 { // a rollback has none
		if err := WriteFile(d.PlanPath(), plan); err != nil {
			return err
		}
	}
	f, err := publish(segmentPath(d.Path, epoch), func(f *os.File) error {
		_, err := f.Write(journal)
		return errors.Join(err, f.Sync())
	})
	if err != nil {
		return err
	}
	return f.Close()
}

// union are the records of a run in kept, each once, in order.
func union(run string, kept map[string][][]byte) []Record {
	best := map[uint64]Record{}
	for _, host := range slices.Sorted(maps.Keys(kept)) {
		for _, line := range kept[host] {
			var rec Record
			if json.Unmarshal(line, &rec) != nil || rec.Run != run || rec.Seq == 0 {
				continue
			}
			if old, ok := best[rec.Seq]; !ok || cmp.Or(cmp.Compare(rec.Epoch, old.Epoch), rec.Time.Compare(old.Time)) > 0 {
				best[rec.Seq] = rec
			}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b Record) int { return cmp.Compare(a.Seq, b.Seq) })
}

// from says where recs are from.
func (d *RunDir) from(kept map[string][][]byte, recs []Record) Record {
	missing := recs[len(recs)-1].Seq - uint64(len(recs))
	return Record{
		V: Schema, Run: d.ID, Kind: Rebuilt, Time: now().UTC().Round(0),
		Text: fmt.Sprintf("rebuilt from what %s kept; %d records before the last are missing",
			strings.Join(slices.Sorted(maps.Keys(kept)), ", "), missing),
	}
}

// chained is the journal of recs, and the epoch whose segment it is.
func chained(recs []Record) ([]byte, uint64, error) {
	var out bytes.Buffer
	var prev string
	epoch := uint64(1)
	for _, rec := range recs {
		rec.Prev = prev
		line, err := encode(&rec)
		if err != nil {
			return nil, 0, err
		}
		prev, epoch = hash(line[:len(line)-1], 32), max(epoch, rec.Epoch)
		out.Write(line)
	}
	return out.Bytes(), epoch, nil
}

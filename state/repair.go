package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const tornName = "journal.torn-"

// Torn is the data of Repaired: what was found after the last whole line.
type Torn struct {
	File string `json:"file"` // beside the journal; holds the bytes
}

// Open opens the journal in dir to go on after a crash, and returns what it
// holds. A torn tail is set aside into journal.torn-N, and a Repaired record
// says so. Where the journal is damaged it returns a *Damage, no journal, and
// the records that can be read.
func Open(dir string) (*Journal, []Record, error) {
	j, recs, err := open(dir, false)
	if err != nil {
		return nil, recs, err
	}
	return j, recs, nil
}

// OpenForRestore is Open for undoing what was done: it takes a damaged
// journal too, and appends behind the damage.
func OpenForRestore(dir string) (*Journal, []Record, error) { return open(dir, true) }

func open(dir string, damaged bool) (*Journal, []Record, error) {
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, fileMode)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	j, recs, err := resume(dir, f, damaged)
	if err != nil {
		f.Close()
		return nil, recs, err
	}
	return j, recs, nil
}

func resume(dir string, f *os.File, damaged bool) (*Journal, []Record, error) {
	if err := lock(f); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil, errors.New("cannot open the journal: another process is writing it; watch it with: deployer status --watch")
	} else if err != nil {
		return nil, nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	c := chain{path: f.Name()}
	recs, good := c.scan(data)
	if c.damage != nil && !damaged {
		return nil, recs, c.damage
	}
	j := newJournal(dir, f, c, int64(good))
	if err := j.setAside(data[good:]); err != nil {
		return nil, recs, fmt.Errorf("cannot set the journal's torn tail aside: %w", err)
	}
	more, err := j.reportTorn(recs)
	if err != nil {
		return nil, recs, err
	}
	if !Fold(recs).Finished() {
		j.relayBallast()
	}
	return j, append(recs, more...), nil
}

// setAside copies the tail, durably, and only then cuts it off.
func (j *Journal) setAside(tail []byte) error {
	if len(tail) == 0 {
		return j.f.Sync() // what the crashed run wrote may not be durable yet
	}
	save := func() error { return writeNew(j.freeName(), tail) }
	err := save()
	if isFull(err) && j.freeBallast() {
		err = save()
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDir(j.dir), j.f.Truncate(j.end), j.f.Sync())
}

func (j *Journal) freeName() string {
	for n := 1; ; n++ {
		path := filepath.Join(j.dir, fmt.Sprint(tornName, n))
		if _, err := os.Lstat(path); err != nil {
			return path
		}
	}
}

// reportTorn writes a Repaired record for each tail set aside that has none:
// also for one that a crash kept from being reported.
func (j *Journal) reportTorn(recs []Record) ([]Record, error) {
	var told []string
	for _, rec := range recs {
		var torn Torn
		if rec.Kind == Repaired && json.Unmarshal(rec.Data, &torn) == nil {
			told = append(told, torn.File)
		}
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	var out []Record
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, tornName) || slices.Contains(told, name) {
			continue
		}
		data, _ := json.Marshal(Torn{File: name})
		rec := Record{Kind: Repaired, Text: "unfinished last record set aside into " + name, Data: data}
		if err := j.Append(&rec); err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

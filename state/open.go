package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const journalName = "journal.jsonl"

// Torn is the data of Repaired: what was found after the last whole line.
type Torn struct {
	File string `json:"file"` // beside the journal; holds the bytes
}

// Read returns what the journal in dir holds. It never writes, and may be
// called while a run writes; a line that is not whole yet is left out. Where
// the journal is damaged it returns what is readable before and after that,
// and says where.
func Read(dir string) ([]Record, *Damage, error) {
	c := chain{path: filepath.Join(dir, journalName)}
	data, err := os.ReadFile(c.path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	recs, _ := c.scan(data)
	return recs, c.damage, nil
}

// Create makes the journal of a new run in dir, and dir where it is missing.
// It fails where a journal is already, and where there is no room for a run.
func Create(dir string) (*Journal, error) {
	j, err := create(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot create the journal: %w", err)
	}
	return j, nil
}

func create(dir string) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return lock(f) }, func() error { return layBallast(dir) }, f.Sync, func() error { return syncDir(dir) },
	} {
		if err := step(); err != nil {
			f.Close()
			os.Remove(path)
			return nil, err
		}
	}
	return newJournal(dir, f, chain{path: path}, 0), nil
}

// Open opens the journal in dir to go on after a crash, and returns what it
// holds. A torn tail is set aside into a file journal.torn-ID, and a Repaired
// record says so. Where the journal is damaged it returns a *Damage, no
// journal, and the records that can be read.
func Open(dir string) (*Journal, []Record, error) { return open(dir, false) }

// OpenForRestore is Open for undoing what was done: it takes a damaged
// journal too, and appends behind the damage.
func OpenForRestore(dir string) (*Journal, []Record, error) { return open(dir, true) }

func open(dir string, damaged bool) (j *Journal, recs []Record, err error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR|os.O_APPEND, fileMode)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			j = nil
		}
	}()
	if err := lock(f); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil, errors.New("cannot open the journal: another process is writing it; see it with: deployer status")
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
	j = newJournal(dir, f, c, int64(good))
	if recs, err = j.repair(recs, data[good:]); err != nil {
		return nil, recs, fmt.Errorf("cannot set the journal's torn tail aside: %w", err)
	}
	if !Fold(recs).Finished() { // without room for a ballast the disk is still full
		j.full = layBallast(dir) != nil || j.full
	}
	return j, recs, nil
}

// repair copies a torn tail, durably, and only then cuts it off and says so.
func (j *Journal) repair(recs []Record, tail []byte) ([]Record, error) {
	if len(tail) == 0 {
		return recs, j.f.Sync() // what the crashed run wrote may not be durable yet
	}
	name := "journal.torn-" + newID(now())
	err := WriteFile(filepath.Join(j.dir, name), tail)
	if isFull(err) && j.freeBallast() {
		err = WriteFile(filepath.Join(j.dir, name), tail)
	}
	if err != nil {
		return recs, err
	}
	if err := errors.Join(j.f.Truncate(j.end), j.f.Sync()); err != nil {
		return recs, err
	}
	data, _ := json.Marshal(Torn{File: name})
	rec := Record{Kind: Repaired, Text: "unfinished last record set aside into " + name, Data: data}
	err = j.Append(&rec)
	return append(recs, rec), err
}

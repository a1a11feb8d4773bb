package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Torn is the data of Repaired: what was found after the last whole line.
type Torn struct {
	File string `json:"file"` // beside the journal; holds the bytes
}

// Read returns what the journal in dir holds. It never writes, and may be
// called while a run writes; a line that is not whole yet is left out. Where
// the journal is damaged it returns what is readable before and after that,
// and says where.
func Read(dir string) ([]Record, *Damage, error) {
	h, err := read(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return h.recs, h.damage, nil
}

// Late counts the records in dir that do not count: a process wrote them while
// another was taking over.
func Late(dir string) (int, error) {
	h, err := read(dir)
	if err != nil {
		return 0, fmt.Errorf("cannot read the journal: %w", err)
	}
	return h.late, nil
}

// Create makes the journal of a new run in dir, and dir where it is missing.
// It fails where a journal is already, and where there is no room for a run.
// Without a lease nothing keeps others from the run.
func Create(dir string, lease *Lease) (*Journal, error) {
	j, err := create(dir, lease)
	if err != nil {
		return nil, fmt.Errorf("cannot create the journal: %w", err)
	}
	return j, nil
}

func create(dir string, lease *Lease) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if there, err := byEpoch(dir, segmentName); err != nil || len(there) > 0 {
		return nil, cmp.Or(err, os.ErrExist)
	}
	path := segmentPath(dir, lease.Epoch())
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
	return newJournal(dir, f, lease, chain{path: path}, 0), nil
}

// Open opens the journal in dir to go on under a lease, in a segment of its
// own, and returns what it holds. A torn tail is set aside into a file
// journal.torn-ID, and a Repaired record says so. Where the journal is damaged
// it returns a *Damage, no journal, and the records that can be read.
func Open(dir string, lease *Lease) (*Journal, []Record, error) { return open(dir, lease, false) }

// OpenForRestore is Open for undoing what was done: it takes a damaged
// journal too, and appends behind the damage.
func OpenForRestore(dir string, lease *Lease) (*Journal, []Record, error) {
	return open(dir, lease, true)
}

func open(dir string, lease *Lease, damaged bool) (j *Journal, recs []Record, err error) {
	f, err := openSegment(dir, lease.Epoch())
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			j = nil
		}
	}()
	h, err := read(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	if err := lease.Lost(); err != nil { // the younger segment is that of who took over
		return nil, h.recs, err
	}
	own := h.segs[len(h.segs)-1]
	if own.path != f.Name() {
		return nil, h.recs, fmt.Errorf("cannot open the journal: %s is younger; take the run's lease first", own.path)
	}
	if h.damage != nil && !damaged {
		return nil, h.recs, h.damage
	}
	j = newJournal(dir, f, lease, h.chain, own.size)
	if recs, err = j.repair(h); err != nil {
		return nil, recs, fmt.Errorf("cannot set the journal's torn tail aside: %w", err)
	}
	if !Fold(recs).Finished() { // without room for a ballast the disk is still full
		j.full = layBallast(dir) != nil || j.full
	}
	return j, recs, nil
}

// openSegment opens the segment of an epoch. That of the first is there: Create
// made it.
func openSegment(dir string, epoch uint64) (*os.File, error) {
	flag := os.O_RDWR | os.O_APPEND
	if epoch > 1 {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(segmentPath(dir, epoch), flag, fileMode)
	if err != nil {
		return nil, err
	}
	if err = lock(f); errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another process is writing it; see it with: deployer status")
	}
	if err = cmp.Or(err, syncDir(dir)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// repair makes durable what a crashed run wrote, and sets torn tails aside: that
// of its own segment first, since it writes there.
func (j *Journal) repair(h *history) ([]Record, error) {
	recs := h.recs
	for i, s := range slices.Backward(h.segs[h.last:]) {
		if err := syncFile(s.path); err != nil {
			return recs, err
		}
		if len(s.tail) == 0 {
			continue
		}
		rec, err := j.setAside(s.tail, h.last+i == len(h.segs)-1)
		if err != nil {
			return recs, err
		}
		recs = append(recs, *rec)
	}
	return recs, nil
}

// setAside copies a torn tail, durably, and only then cuts it off, where it is
// in the segment that is written on, and says so.
func (j *Journal) setAside(tail []byte, own bool) (*Record, error) {
	name := "journal.torn-" + newID(now())
	err := WriteFile(filepath.Join(j.dir, name), tail)
	if isFull(err) && j.freeBallast() {
		err = WriteFile(filepath.Join(j.dir, name), tail)
	}
	if err == nil && own {
		err = errors.Join(j.f.Truncate(j.end), j.f.Sync())
	}
	if err != nil {
		return nil, err
	}
	data, _ := json.Marshal(Torn{File: name})
	rec := &Record{Kind: Repaired, Text: "unfinished last record set aside into " + name, Data: data}
	return rec, j.Append(rec)
}

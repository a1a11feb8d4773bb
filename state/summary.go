package state

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// Summary is a run in one line of a list.
type Summary struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Runbook  string    `json:"runbook"`
	Undoes   string    `json:"undoes,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Hosts    []string  `json:"hosts"`
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitempty"`
	Status   Status    `json:"status"` // as derived
	Exit     *int      `json:"exit,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	Damage   *Damage   `json:"-"` // looked for in unfinished runs only
}

// Runs lists all runs, newest first. Of a finished run it reads the two ends
// of the journal only.
func (s *Store) Runs() ([]Summary, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var out []Summary
	for _, id := range ids {
		sum, err := s.dir(id).summary()
		if err != nil {
			return nil, err
		}
		out = append(out, sum)
	}
	return out, nil
}

// LastGood returns the newest deploy that succeeded and that no rollback has
// undone, or nil.
func (s *Store) LastGood() (*RunDir, error) {
	runs, err := s.Runs()
	if err != nil {
		return nil, err
	}
	undone := map[string]bool{}
	for _, run := range runs {
		switch {
		case run.Type == "rollback" && restored(run.Status):
			undone[run.Undoes] = true
		case run.Type == "deploy" && run.Status == Succeeded && !undone[run.ID]:
			return s.dir(run.ID), nil
		}
	}
	return nil, nil
}

func restored(s Status) bool { return s == Succeeded || s == RolledBack || s == Restored }

func (d *RunDir) summary() (Summary, error) {
	recs := d.ends()
	var damage *Damage
	if len(recs) < 2 || recs[1].Kind != RunFinished {
		var err error
		if recs, damage, err = Read(d.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Summary{}, err
		}
	}
	run := Fold(recs)
	return Summary{
		ID: d.ID, Type: run.Type, Runbook: run.Runbook, Undoes: run.Undoes, Revision: run.Revision,
		Hosts: run.Hosts, By: run.By, Reason: run.Reason, Status: Derive(run, d.Live()),
		Exit: run.Exit, Started: run.Started, Ended: run.Ended, Damage: damage,
	}, nil
}

// ends returns the first and the last record, where they are easily had.
func (d *RunDir) ends() []Record {
	const block = 16 << 10
	f, err := os.Open(d.JournalPath())
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	head, tail := make([]byte, block), make([]byte, block)
	n, _ := f.ReadAt(head, 0)
	first, _, _ := bytes.Cut(head[:n], []byte("\n"))
	n, _ = io.ReadFull(io.NewSectionReader(f, max(0, info.Size()-block), block), tail)
	tail = bytes.TrimSuffix(tail[:n], []byte("\n"))
	last := tail[bytes.LastIndexByte(tail, '\n')+1:]
	a, errA := decode(first)
	b, errB := decode(last)
	if errA != nil || errB != nil || a.Kind != RunCreated {
		return nil
	}
	return []Record{a, b}
}

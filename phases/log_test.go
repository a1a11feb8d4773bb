package phases_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// numbers is a sink, as plain as one may be, that checks what it is promised.
type numbers struct {
	t    *testing.T
	last uint64
	all  int
}

func (n *numbers) Event(rec state.Record) {
	if rec.Seq != n.last+1 {
		n.t.Errorf("record %d after %d", rec.Seq, n.last)
	}
	n.last, n.all = rec.Seq, n.all+1
}

// Sinks get one event at a time, in the order of the journal.
func TestSinksSeeTheJournalsOrder(t *testing.T) {
	n := &numbers{t: t}
	log := &phases.Log{Run: "r", Journal: &journal{rig: &rig{}}, Sinks: []phases.Sink{n}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := log.Record(state.Record{Kind: state.Note}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n.all != 400 {
		t.Errorf("%d events", n.all)
	}
}

func TestLogKeepsTheJournalsError(t *testing.T) {
	j := &journal{rig: &rig{}, broken: errors.New("gone")}
	seen := 0
	log := &phases.Log{Journal: j, Sinks: []phases.Sink{counter{&seen}}}
	if err := log.Record(state.Record{Kind: state.StepProgress}, nil); err != nil || log.Broken() != nil {
		t.Errorf("progress is not kept: %v", err)
	}
	if err := log.Record(state.Record{Kind: state.Note}, nil); !errors.Is(err, j.broken) || !errors.Is(log.Broken(), j.broken) || seen != 2 {
		t.Errorf("got %v, broken %v, shown %d", err, log.Broken(), seen)
	}
	if err := (*phases.Log)(nil).Record(state.Record{}, nil); err != nil {
		t.Errorf("no log: %v", err)
	}
	if err := log.Record(state.Record{Kind: state.Note}, func() {}); err == nil {
		t.Error("what cannot be encoded is no error")
	}
}

type counter struct{ n *int }

func (c counter) Event(state.Record) { *c.n++ }

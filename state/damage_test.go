package state_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/state"
)

const lines = 5

// split returns the lines of a journal, newlines included.
func split(data []byte) [][]byte {
	out := bytes.SplitAfter(data, []byte("\n"))
	return out[:len(out)-1]
}

func TestTornTailAtEveryByteIsSetAside(t *testing.T) {
	data := journalOf(t, lines)
	whole := len(data) - len(split(data)[lines-1])
	dir := plant(t, data)
	for cut := whole; cut < len(data); cut++ {
		rewrite(t, dir, data[:cut])
		checkRepair(t, dir, data[whole:cut])
	}
}

// checkRepair opens a journal whose last record is torn, and looks at all that
// Open promises of that.
func checkRepair(t *testing.T, dir string, tail []byte) {
	t.Helper()
	before, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(before) != lines-1 {
		t.Fatalf("tail of %d bytes: a reader gets %d records, %v, %v", len(tail), len(before), damage, err)
	}
	j, recs, err := state.Open(dir, nil)
	must(t, err)
	appendNotes(t, j, 1)
	must(t, j.Close())
	want := lines - 1
	if len(tail) > 0 {
		want++
		torn, _ := filepath.Glob(filepath.Join(dir, "journal.torn-*"))
		saved, err := os.ReadFile(torn[0])
		must(t, err)
		if !bytes.Equal(saved, tail) {
			t.Fatalf("set aside %q, not %q", saved, tail)
		}
		if recs[len(recs)-1].Kind != state.Repaired {
			t.Fatalf("no record of the repair: %v", texts(recs))
		}
	}
	after, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(recs) != want || len(after) != want+1 {
		t.Fatalf("tail of %d bytes: afterwards %v, %v, %v", len(tail), texts(after), damage, err)
	}
}

func TestFlippedByteInLastLineIsNeverRead(t *testing.T) {
	data := journalOf(t, lines)
	whole := len(data) - len(split(data)[lines-1])
	dir := plant(t, data)
	for i := whole; i < len(data); i++ {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			bad := bytes.Clone(data)
			bad[i] ^= bit
			rewrite(t, dir, bad)
			checkRepair(t, dir, bad[whole:])
		}
	}
}

func TestFlippedByteInTheMiddleIsDamage(t *testing.T) {
	data := journalOf(t, lines)
	from := len(bytes.Join(split(data)[:2], nil))
	to := from + len(split(data)[2])
	dir := plant(t, data)
	for i := from; i < to; i++ {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			bad := bytes.Clone(data)
			bad[i] ^= bit
			rewrite(t, dir, bad)
			recs, damage, err := state.Read(dir)
			must(t, err)
			if damage == nil || damage.Line != 3 {
				t.Fatalf("byte %d, bit %x: damage is %v", i-from, bit, damage)
			}
			if len(recs) < lines-2 { // the newline joins two lines: both are lost
				t.Fatalf("byte %d: only %v can be read", i-from, texts(recs))
			}
			var forWriters *state.Damage
			if j, _, err := state.Open(dir, nil); j != nil || !errors.As(err, &forWriters) {
				t.Fatalf("byte %d: a writer got %v, %v", i-from, j, err)
			}
		}
	}
}

func TestNULTailIsTorn(t *testing.T) {
	data := journalOf(t, lines-1)
	for _, n := range []int{1, 511, 4096} {
		nul := make([]byte, n)
		checkRepair(t, plant(t, append(bytes.Clone(data), nul...)), nul)
	}
}

func TestLinesOutOfTheirChainAreDamage(t *testing.T) {
	data := journalOf(t, lines)
	l := split(data)
	other := split(journalOf(t, lines))
	foreign := split(otherRun(t))
	cases := map[string]struct {
		lines [][]byte
		at    int
	}{
		"last line twice":   {slices.Concat(l, l[4:]), 6},
		"last two twice":    {slices.Concat(l, l[3:]), 6},
		"line cut out":      {slices.Concat(l[:2], l[3:]), 3},
		"first cut out":     {l[1:], 1},
		"two swapped":       {[][]byte{l[0], l[2], l[1], l[3], l[4]}, 2},
		"line of another":   {[][]byte{l[0], l[1], other[2], l[3], l[4]}, 3},
		"line of other run": {slices.Concat(l, foreign[4:]), 6},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := plant(t, bytes.Join(c.lines, nil))
			recs, damage, err := state.Read(dir)
			must(t, err)
			if damage == nil || damage.Line != c.at {
				t.Fatalf("damage is %v, want it at line %d", damage, c.at)
			}
			if !slices.IsSortedFunc(recs, func(a, b state.Record) int { return int(a.Seq) - int(b.Seq) }) {
				t.Fatalf("a reader gets records out of order: %v", texts(recs))
			}
			if _, _, err := state.Open(dir, nil); err == nil {
				t.Fatal("a writer may go on")
			}
		})
	}
}

func otherRun(t *testing.T) []byte {
	j, err := state.Create(filepath.Join(t.TempDir(), "run-2"), nil)
	must(t, err)
	defer j.Close()
	dir := filepath.Join(t.TempDir(), "run-2")
	j, err = state.Create(dir, nil)
	must(t, err)
	appendNotes(t, j, lines)
	return readJournal(t, dir)
}

func TestRestoreGoesOnBehindDamage(t *testing.T) {
	l := split(journalOf(t, lines))
	dir := plant(t, bytes.Join(slices.Concat(l[:2], l[3:], l[4:]), []byte("")))
	for round := range 2 {
		j, recs, err := state.OpenForRestore(dir, nil)
		must(t, err)
		if j.Damage() == nil || len(recs) != lines-1+round {
			t.Fatalf("round %d: damage %v, records %v", round, j.Damage(), texts(recs))
		}
		must(t, j.Append(&state.Record{Kind: state.UndoIntent, Text: "undo"}))
		must(t, j.Close())
	}
	recs, damage, err := state.Read(dir)
	if err != nil || damage == nil || damage.Line != 3 || len(recs) != lines+1 {
		t.Fatalf("afterwards %v, %v, %v", texts(recs), damage, err)
	}
	if msg := damage.Error(); !strings.Contains(msg, "line 3") || !strings.Contains(msg, "deployer rollback") {
		t.Fatalf("the error does not help: %s", msg)
	}
}

func TestJournalTornInItsFirstRecord(t *testing.T) {
	dir := plant(t, journalOf(t, 1)[:30])
	j, recs, err := state.Open(dir, nil)
	must(t, err)
	defer j.Close()
	if len(recs) != 1 || recs[0].Kind != state.Repaired || recs[0].Run != runID {
		t.Fatalf("got %+v", recs)
	}
}

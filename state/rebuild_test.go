package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/state"
)

const storedID = "06f9x2k4m0q7r8s9ta"

// kept is what one host keeps of a journal: from when it is locked on, its own
// records and those of no host, with all of the latter that came before.
func kept(host string, recs []state.Record, upto int) (lines [][]byte) {
	for _, rec := range recs[:upto] {
		if rec.Host == "" || rec.Host == host {
			line, _ := json.Marshal(rec)
			lines = append(lines, line)
		}
	}
	return lines
}

// spoil doubles lines, mixes them, tears a copy of one, and adds what is none.
func spoil(t *rapid.T, lines [][]byte) [][]byte {
	out := slices.Concat(lines, [][]byte{nil, []byte("\x00\x00"), []byte(`{"v":2,"seq":3,"run":"another","kind":"note"}`)})
	for range rapid.IntRange(0, 5).Draw(t, "doubled") {
		if len(lines) > 0 {
			line := lines[rapid.IntRange(0, len(lines)-1).Draw(t, "line")]
			out = append(out, line, line[:rapid.IntRange(0, len(line)-1).Draw(t, "torn")])
		}
	}
	mix := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "mix"), 0))
	mix.Shuffle(len(out), func(a, b int) { out[a], out[b] = out[b], out[a] })
	return out
}

// stored are random records as the journals of one to three epochs have them.
func stored(t *rapid.T) []state.Record {
	var recs []state.Record
	epoch := uint64(0)
	for i := range rapid.IntRange(1, 40).Draw(t, "n") {
		if i == 0 || epoch < 3 && rapid.IntRange(0, 12).Draw(t, "takeover") == 0 {
			epoch++
		}
		rec := anyRecord(t, storedID, i+1)
		if i == 0 {
			rec.Kind = state.RunCreated
		}
		if strings.HasPrefix(string(rec.Kind), "run.") || rec.Kind == state.LeaseAcquired {
			rec.Host = "" // what is of all lanes is of no host
		}
		rec.Epoch, rec.Prev = epoch, fmt.Sprint("of the journal that was lost ", i)
		recs = append(recs, rec)
	}
	return recs
}

// late are records that an old controller wrote while another took over.
func late(t *rapid.T, recs []state.Record) (lines [][]byte) {
	for range rapid.IntRange(0, 3).Draw(t, "late") {
		rec := recs[rapid.IntRange(0, len(recs)-1).Draw(t, "same")]
		if rec.Epoch > 1 {
			other := anyRecord(t, storedID, int(rec.Seq))
			other.Epoch = rec.Epoch - 1
			line, _ := json.Marshal(other)
			lines = append(lines, line)
		}
	}
	return lines
}

var sameRun = cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(state.Run{}), cmpopts.IgnoreFields(state.Record{}, "Prev")}

// foldRebuilt rebuilds in a new store, and reads what is there.
func foldRebuilt(t *rapid.T, dir string, kept map[string][][]byte) *state.Run {
	store := &state.Store{Path: dir}
	d, err := store.Rebuild(storedID, kept, []byte(`{"digest":"d"}`))
	if err != nil {
		t.Fatal(err)
	}
	recs, damage, err := state.Read(d.Path)
	if err != nil || damage != nil || recs[0].Kind != state.Rebuilt {
		t.Fatal(damage, err)
	}
	return state.Fold(recs)
}

func TestRebuiltRunIsTheRun(t *testing.T) {
	dirs := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		recs := stored(t)
		from := map[string][][]byte{}
		for _, host := range []string{"web1", "db1"} {
			from[host] = spoil(t, slices.Concat(kept(host, recs, len(recs)), late(t, recs)))
		}
		got := foldRebuilt(t, filepath.Join(dirs, fmt.Sprint(n)), from)
		if diff := cmp.Diff(state.Fold(recs), got, sameRun); diff != "" {
			t.Fatal(diff)
		}
	})
}

// steps are those of a host, by key.
func steps(run *state.Run, host string) map[string]*state.StepState {
	out := map[string]*state.StepState{}
	for _, key := range []string{"a", "b"} {
		out[key] = run.Step(host, key)
	}
	return out
}

func TestLaneWhoseHostKeptItAllIsRebuiltWithoutTheOthers(t *testing.T) {
	dirs := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		recs := stored(t)
		upto := rapid.IntRange(0, len(recs)).Draw(t, "upto")
		from := map[string][][]byte{"web1": spoil(t, kept("web1", recs, len(recs))), "db1": spoil(t, kept("db1", recs, upto))}
		want, got := state.Fold(recs), foldRebuilt(t, filepath.Join(dirs, fmt.Sprint(n)), from)
		if diff := cmp.Diff(want.Lanes["web1"], got.Lanes["web1"]); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(steps(want, "web1"), steps(got, "web1"), sameRun); diff != "" {
			t.Fatal(diff)
		}
		if got.Status != want.Status || got.Outcome != want.Outcome {
			t.Fatal(got.Status, want.Status)
		}
	})
}

// A rebuilt run goes on in an epoch above all that was seen, with numbers above
// all that was seen, and can be rebuilt again from old lines and new ones.
func TestRebuiltRunGoesOn(t *testing.T) {
	lines := map[string][][]byte{"web1": {}, "db1": {}}
	add := func(host string, seq, epoch uint64, text string) {
		line, err := json.Marshal(state.Record{V: state.Schema, Run: storedID, Seq: seq, Epoch: epoch, Kind: state.Note, Host: host, Text: text})
		must(t, err)
		lines[host] = append(lines[host], line)
	}
	add("web1", 2, 1, "a")
	add("db1", 9, 4, "c")
	add("db1", 5, 2, "b")
	s := &state.Store{Path: t.TempDir()}
	d, err := s.Rebuild(storedID, lines, nil)
	must(t, err)
	j, recs := goOn(t, d, false)
	if want := "rebuilt from what db1, web1 kept; 6 records before the last are missing"; len(recs) != 4 || recs[0].Text != want {
		t.Fatal(texts(recs))
	}
	rec := state.Record{Kind: state.Note, Host: "web1", Text: "d"}
	must(t, j.Append(&rec))
	if rec.Seq != 10 || rec.Epoch != 5 {
		t.Fatalf("it goes on as %+v", rec)
	}
	line, err := json.Marshal(rec)
	must(t, err)
	lines["web1"] = append(lines["web1"], line)
	again, err := (&state.Store{Path: t.TempDir()}).Rebuild(storedID, lines, []byte("{}"))
	must(t, err)
	got, damage, err := state.Read(again.Path)
	if want := []string{"a", "b", "c", "d"}; err != nil || damage != nil || !slices.Equal(texts(got)[1:], want) {
		t.Fatal(texts(got), damage, err)
	}
	if plan, err := os.ReadFile(again.PlanPath()); err != nil || string(plan) != "{}" {
		t.Fatalf("%q, %v", plan, err)
	}
}

func TestNumbersMayBeMissingInARebuiltRunLinesMayNot(t *testing.T) {
	for what, spoil := range map[string]func(l [][]byte) [][]byte{
		"a line":        func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) },
		"another first": func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[0]) },
	} {
		var lines [][]byte
		for _, seq := range []uint64{1, 3, 7} {
			line, err := json.Marshal(state.Record{V: state.Schema, Run: storedID, Seq: seq, Kind: state.Note})
			must(t, err)
			lines = append(lines, line)
		}
		d, err := (&state.Store{Path: t.TempDir()}).Rebuild(storedID, map[string][][]byte{"web1": lines}, nil)
		must(t, err)
		recs, damage, err := state.Read(d.Path)
		if err != nil || damage != nil || len(recs) != 4 {
			t.Fatal(len(recs), damage, err)
		}
		spoilFile(t, filepath.Join(d.Path, "journal.jsonl"), spoil)
		if recs, damage, err := state.Read(d.Path); err != nil || damage == nil || damage.Line != 3 || len(recs) > 4 {
			t.Errorf("%s: %v, %v", what, damage, err)
		}
	}
}

func TestRebuildRefuses(t *testing.T) {
	s := store(t)
	there := addRun(t, s, "deploy", "", "")
	line, err := json.Marshal(state.Record{Run: there.ID, Seq: 1, Kind: state.Note})
	must(t, err)
	if _, err := s.Rebuild(there.ID, map[string][][]byte{"web1": {line}}, nil); !errors.Is(err, os.ErrExist) {
		t.Fatalf("over a run that is there: %v", err)
	}
	for id, why := range map[string]string{storedID: "no host kept", "../../etc": "no id"} {
		if _, err := s.Rebuild(id, map[string][][]byte{"web1": {line, []byte("{")}}, nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if runs, _ := s.Runs(); len(runs) != 1 {
		t.Fatal(runs)
	}
}

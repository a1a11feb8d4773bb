package state_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hbohlen/deployer/state"
)

func note(t testing.TB, j *state.Journal, texts ...string) {
	t.Helper()
	for _, text := range texts {
		must(t, j.Append(&state.Record{Kind: state.Note, Text: text}))
	}
}

// wantRead looks at all that a reader gets: the texts, and how many are late.
func wantRead(t testing.TB, dir, want string, late int) {
	t.Helper()
	recs, damage, err := state.Read(dir)
	n, lerr := state.Late(dir)
	if got := strings.Join(texts(recs), " "); got != want || damage != nil || err != nil || lerr != nil || n != late {
		t.Fatalf("read %q and %d late, want %q and %d; %v, %v, %v", got, n, want, late, damage, err, lerr)
	}
	for i, rec := range recs {
		if rec.Seq != uint64(i+1) {
			t.Fatalf("record %d is numbered %d", i+1, rec.Seq)
		}
	}
}

func TestFencedProcessWritesNothing(t *testing.T) {
	d, j := begun(t, 0)
	note(t, j, "a", "b")
	young, recs := goOn(t, d, true)
	if len(recs) != 2 {
		t.Fatal(texts(recs))
	}
	before := readJournal(t, d.Path)
	var fenced *state.Fenced
	for range 2 {
		if err := j.Append(&state.Record{Kind: state.Note}); !errors.As(err, &fenced) || fenced.Owner.Epoch != 2 {
			t.Fatal(err)
		}
	}
	if _, _, err := state.Open(d.Path, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatal(err)
	}
	if !bytes.Equal(before, readJournal(t, d.Path)) {
		t.Fatal("it wrote")
	}
	note(t, young, "c", "d")
	wantRead(t, d.Path, "a b c d", 0)
	must(t, j.Close())
	if _, _, err := state.Open(d.Path, nil); err == nil || !strings.Contains(err.Error(), "younger") {
		t.Fatalf("opened without a lease: %v", err)
	}
}

// A takeover in the middle of an append: between its look at the lease and its
// write. The record is there, is not acknowledged, and does not count.
func TestLateRecordsDoNotCount(t *testing.T) {
	d, j := begun(t, 0)
	note(t, j, "a")
	var young *state.Journal
	late := func(journal *state.Journal, text string) {
		t.Helper()
		journal.Wrap(func(f state.File) state.File {
			return &disk{File: f, onWrite: func([]byte) (int, error) {
				young, _ = goOn(t, d, true)
				return 0, nil
			}}
		})
		var fenced *state.Fenced
		if err := journal.Append(&state.Record{Kind: state.Note, Text: text}); !errors.As(err, &fenced) {
			t.Fatalf("a late record was acknowledged: %v", err)
		}
	}
	late(j, "late")
	wantRead(t, d.Path, "a late", 0) // nobody went on from elsewhere yet
	second := young
	note(t, second, "b")
	wantRead(t, d.Path, "a b", 1)
	late(second, "later")
	third := young
	note(t, third, "c")
	wantRead(t, d.Path, "a b c", 2)

	// What is wrong behind the point of takeover does not count either.
	path := filepath.Join(d.Path, "journal.jsonl")
	data := readJournal(t, d.Path)
	must(t, os.WriteFile(path, slices.Concat(split(data)[0], []byte("torn\n"), split(data)[1]), 0o600))
	wantRead(t, d.Path, "a b c", 2)
	must(t, third.Close())
	_, recs := goOn(t, d, true)
	if got := texts(recs); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatal(got)
	}
}

// The second process is taken over from before its first record, and writes it
// late: the third had gone on from more of the first's than the second saw.
func TestSegmentThatNobodySawDoesNotCount(t *testing.T) {
	d, j := begun(t, 0)
	note(t, j, "a")
	second := hold(t, d, true)
	young, _, err := state.Open(d.Path, second)
	must(t, err)
	defer young.Close()
	young.Wrap(func(f state.File) state.File {
		return &disk{File: f, onWrite: func([]byte) (int, error) {
			third, _ := goOn(t, d, true)
			note(t, third, "c")
			return 0, nil
		}}
	})
	if err := young.Append(&state.Record{Kind: state.Note, Text: "late"}); err == nil {
		t.Fatal("acknowledged")
	}
	wantRead(t, d.Path, "a c", 1)
}

// The third goes on from what the first wrote late for the second.
func TestSegmentGoesOnFromALineNotFromANumber(t *testing.T) {
	d, j := begun(t, 0)
	note(t, j, "a")
	var second, third *state.Journal
	during := func(j *state.Journal, young **state.Journal) {
		j.Wrap(func(f state.File) state.File {
			return &disk{File: f, onWrite: func([]byte) (int, error) {
				*young, _ = goOn(t, d, true)
				return 0, nil
			}}
		})
	}
	during(j, &second)
	_ = j.Append(&state.Record{Kind: state.Note, Text: "b"})
	during(second, &third)
	_ = second.Append(&state.Record{Kind: state.Note, Text: "late"})
	note(t, third, "c")
	wantRead(t, d.Path, "a b c", 1)
}

// Full for good, and taken over from in the middle of an fsync: the lines that
// were read meanwhile are not touched.
func TestFencedProcessRewritesNothing(t *testing.T) {
	d, j := begun(t, 0)
	note(t, j, "a")
	var young *state.Journal
	full := &disk{}
	j.Wrap(func(f state.File) state.File { full.File = f; return full })
	full.onSync = func() error {
		young, _ = goOn(t, d, true)
		full.onWrite = func([]byte) (int, error) { return 0, syscall.ENOSPC }
		return syscall.ENOSPC
	}
	var fenced *state.Fenced
	if err := j.Append(&state.Record{Kind: state.Note, Text: "b"}); !errors.As(err, &fenced) {
		t.Fatal(err)
	}
	note(t, young, "c")
	wantRead(t, d.Path, "a b c", 0)
}

// segments is a run of three epochs, three notes each.
func segments(t *testing.T) *state.RunDir {
	d, j := begun(t, 3)
	for range 2 {
		must(t, j.Close())
		j, _ = goOn(t, d, true)
		appendNotes(t, j, 3)
	}
	must(t, j.Close())
	return d
}

func TestDamageInAnySegmentStopsForwardWorkOnly(t *testing.T) {
	cases := map[string]func(l [][]byte) [][]byte{
		"flipped":   func(l [][]byte) [][]byte { l[1][20] ^= 1; return l },
		"cut out":   func(l [][]byte) [][]byte { return slices.Delete(l, 1, 2) },
		"no first":  func(l [][]byte) [][]byte { return l[1:] },
		"bad first": func(l [][]byte) [][]byte { l[0][20] ^= 1; return l },
		"repeated":  func(l [][]byte) [][]byte { return append(l, l[1]) },
	}
	for _, name := range []string{"journal.jsonl", "journal-2.jsonl", "journal-3.jsonl"} {
		for what, spoil := range cases {
			t.Run(name+" "+what, func(t *testing.T) {
				d := segments(t)
				spoilFile(t, filepath.Join(d.Path, name), spoil)
				checkDamaged(t, d, name)
			})
		}
	}
	for _, name := range []string{"journal.jsonl", "journal-2.jsonl"} { // a whole last line that somebody went on from
		t.Run(name+" no last", func(t *testing.T) {
			d := segments(t)
			spoilFile(t, filepath.Join(d.Path, name), func(l [][]byte) [][]byte { l[2][20] ^= 1; return l })
			checkDamaged(t, d, "")
		})
	}
}

func spoilFile(t *testing.T, path string, spoil func([][]byte) [][]byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.Join(spoil(split(data)), nil), 0o600))
}

func checkDamaged(t *testing.T, d *state.RunDir, name string) {
	t.Helper()
	recs, damage, err := state.Read(d.Path)
	if err != nil || damage == nil || len(recs) < 8 || name != "" && filepath.Base(damage.Path) != name {
		t.Fatalf("read %d records, %v, %v", len(recs), damage, err)
	}
	lease := hold(t, d, true)
	var forWriters *state.Damage
	if j, got, err := state.Open(d.Path, lease); j != nil || !errors.As(err, &forWriters) || len(got) != len(recs) {
		t.Fatalf("a writer got %v, %v", j, err)
	}
	j, _, err := state.OpenForRestore(d.Path, lease)
	must(t, err)
	if j.Damage() == nil {
		t.Fatal("it says nothing of the damage")
	}
	must(t, j.Append(&state.Record{Kind: state.UndoDone, Text: "undone"}))
	must(t, j.Close())
	again, damage, err := state.Read(d.Path)
	if err != nil || damage == nil || len(again) != len(recs)+1 || again[len(recs)].Seq != recs[len(recs)-1].Seq+1 {
		t.Fatalf("afterwards %d records, %v, %v", len(again), damage, err)
	}
}

// A tail torn by a crash stays in the dead process's segment; its copy and the
// record of it are the next one's.
func TestTornTailOfAnOlderSegmentIsSetAside(t *testing.T) {
	for _, name := range []string{"journal.jsonl", "journal-3.jsonl"} {
		d := segments(t)
		path := filepath.Join(d.Path, name)
		data, err := os.ReadFile(path)
		must(t, err)
		tail := []byte("0123456789abcdef {\"v\":2")
		must(t, os.WriteFile(path, append(data, tail...), 0o600))
		want := 9
		_, recs := goOn(t, d, true)
		torn, _ := filepath.Glob(filepath.Join(d.Path, "journal.torn-*"))
		if name == "journal-3.jsonl" {
			want = 10
			saved, err := os.ReadFile(torn[0])
			if err != nil || !bytes.Equal(saved, tail) || recs[9].Kind != state.Repaired || recs[9].Epoch != 4 {
				t.Fatalf("set aside %q, %+v, %v", saved, recs[9], err)
			}
		} else if len(torn) != 0 {
			t.Fatal("set aside again")
		}
		if after, damage, err := state.Read(d.Path); err != nil || damage != nil || len(recs) != want || len(after) != want {
			t.Fatalf("%s: %d, then %d records, %v, %v", name, len(recs), len(after), damage, err)
		}
	}
}

// After a failed write the same process opens its own segment again: what it
// left torn there goes first.
func TestOwnSegmentIsOpenedAgain(t *testing.T) {
	d, j := begun(t, 2)
	must(t, j.Close())
	add(t, filepath.Join(d.Path, "journal.jsonl"), "torn by the first")
	lease := hold(t, d, true)
	add(t, filepath.Join(d.Path, "journal-2.jsonl"), "torn by the second")
	for round := range 3 {
		j, recs, err := state.Open(d.Path, lease)
		must(t, err)
		note(t, j, "more")
		must(t, j.Close())
		if len(recs) != 4+round || recs[0].Epoch != 1 || recs[3].Epoch != 2 {
			t.Fatalf("round %d: %+v", round, recs)
		}
	}
	if torn, _ := filepath.Glob(filepath.Join(d.Path, "journal.torn-*")); len(torn) != 2 {
		t.Fatal(torn)
	}
	if recs, damage, err := state.Read(d.Path); err != nil || damage != nil || len(recs) != 7 {
		t.Fatal(len(recs), damage, err)
	}
}

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, errors.Join(err, f.Close()))
}

func TestFullDiskInALaterSegmentFreesTheBallast(t *testing.T) {
	d, j := begun(t, 2)
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(d.Path, "ballast")))
	j, _ = goOn(t, d, true)
	j.Wrap(func(f state.File) state.File { return &disk{File: f, onWrite: fullUntilFreed(d.Path, 7)} })
	appendNotes(t, j, 2)
	if recs, damage, err := state.Read(d.Path); err != nil || damage != nil || len(recs) != 4 || !j.Full() || hasBallast(d.Path) {
		t.Fatal(len(recs), damage, err, j.Full())
	}
}

func TestNewJournalOverAnOldOneIsRefused(t *testing.T) {
	d, _ := begun(t, 1)
	if _, err := state.Create(d.Path, hold(t, d, true)); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

package state_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

const runID = "run-1"

var epoch = time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)

func raw(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB) (*state.Journal, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), runID)
	j, err := state.Create(dir, nil)
	must(t, err)
	t.Cleanup(func() { j.Close() })
	return j, dir
}

func appendNotes(t testing.TB, j *state.Journal, n int) {
	t.Helper()
	for i := range n {
		must(t, j.Append(&state.Record{Kind: state.Note, Text: fmt.Sprintf("note %d", i)}))
	}
}

// journalOf returns the bytes of a journal with n notes.
func journalOf(t testing.TB, n int) []byte {
	t.Helper()
	j, dir := create(t)
	appendNotes(t, j, n)
	must(t, j.Close())
	return readJournal(t, dir)
}

func readJournal(t testing.TB, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
	must(t, err)
	return data
}

// plant makes a run folder that holds data as its journal.
func plant(t testing.TB, data []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), runID)
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), data, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "ballast"), nil, 0o600)) // quicker than a real one
	return dir
}

func rewrite(t testing.TB, dir string, data []byte) {
	t.Helper()
	old, _ := filepath.Glob(filepath.Join(dir, "journal.*"))
	for _, path := range old {
		must(t, os.Remove(path))
	}
	must(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), data, 0o600))
}

func texts(recs []state.Record) []string {
	var out []string
	for _, rec := range recs {
		out = append(out, rec.Text)
	}
	return out
}

// hold takes the lease of a run until the test ends.
func hold(t testing.TB, d *state.RunDir, takeOver bool) *state.Lease {
	t.Helper()
	lease, err := d.Lease(takeOver)
	must(t, err)
	t.Cleanup(func() { _ = lease.Release() })
	return lease
}

// goOn takes a run and opens its journal.
func goOn(t testing.TB, d *state.RunDir, takeOver bool) (*state.Journal, []state.Record) {
	t.Helper()
	j, recs, err := state.Open(d.Path, hold(t, d, takeOver))
	must(t, err)
	t.Cleanup(func() { j.Close() })
	return j, recs
}

// begun is a new run whose first controller wrote n notes.
func begun(t testing.TB, n int) (*state.RunDir, *state.Journal) {
	t.Helper()
	d := &state.RunDir{ID: runID, Path: filepath.Join(t.TempDir(), runID)}
	must(t, os.Mkdir(d.Path, 0o700))
	must(t, os.WriteFile(filepath.Join(d.Path, "ballast"), nil, 0o600)) // quicker than a real one
	j, err := state.Create(d.Path, hold(t, d, false))
	must(t, err)
	t.Cleanup(func() { j.Close() })
	appendNotes(t, j, n)
	return d, j
}

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
	j, err := state.Create(dir)
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

package runbooks_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/runbooks"
)

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		write(t, file, got)
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func broken(t *testing.T) *runbooks.Errors {
	t.Helper()
	_, _, err := runbooks.Load(runbooks.Options{Project: "testdata/mistakes", Runbook: "r", Vars: map[string]string{"confrm": "3m"}})
	var all *runbooks.Errors
	if !errors.As(err, &all) {
		t.Fatalf("%T: %v", err, err)
	}
	return all
}

func TestAllMistakesOfBothFilesAreReportedAtOnce(t *testing.T) {
	golden(t, "testdata/mistakes/list.txt", broken(t).Error()+"\n")
	golden(t, "testdata/mistakes/detail.txt", broken(t).Detail())
}

func TestMistakesStandInTheOrderOfTheFile(t *testing.T) {
	last := runbooks.Pos{}
	for _, m := range broken(t).List {
		if m.Pos.File == last.File && m.Pos.Line < last.Line {
			t.Errorf("%s after line %d", m, last.Line)
		}
		last = m.Pos
	}
}

func TestNoSecretIsShown(t *testing.T) {
	if text := broken(t).Detail(); strings.Contains(text, "hunter") {
		t.Error(text)
	}
}

func TestMistakesSpeakTheRunbooksWords(t *testing.T) {
	for _, m := range broken(t).List {
		for _, word := range []string{"runbooks.", "struct", "unmarshal", "time.Duration", "string", "nil", "yaml:"} {
			if strings.Contains(m.Message, word) {
				t.Errorf("%q speaks Go's language", m.Message)
			}
		}
	}
}

func TestUnbuiltIsRefusedByName(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	var lines []string
	for _, m := range p.Unbuilt(rb) {
		lines = append(lines, m.String())
		if m.Snippet == "" {
			t.Errorf("%s: no line", m)
		}
	}
	golden(t, "testdata/project/unbuilt.txt", strings.Join(lines, "\n")+"\n")
}

func TestUnbuiltIsOnlyWhatARunbookUses(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	rb.Phases = rb.Phases[1:3] // backup, build
	if got := p.Unbuilt(rb); len(got) > 0 {
		t.Error(got)
	}
	p.Notify["chat"] = &runbooks.Notify{Kind: "slack"}
	rb.Phases = []*runbooks.Phase{{Kind: "edit", Edit: &runbooks.Unbuilt{}}}
	p.Snapshots.Subvolumes = map[string]*runbooks.Subvolume{"/a": {OnRollback: "ask"}}
	var got []string
	for _, m := range p.Unbuilt(rb) {
		got = append(got, strings.TrimSuffix(m.Message, " is not built in this version"))
	}
	expect(t, got, "`edit`", "`kind: slack`")
}

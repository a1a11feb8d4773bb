package state_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/state"
)

func TestSecretsAreInNoLine(t *testing.T) {
	j, dir := create(t)
	secrets := []string{"hunter22", "quo\"ted\\<&>", "-----KEY\nfirst line\nsecond line\n-----", "sch\u00f6n\u2028"}
	must(t, j.Redact(secrets...))
	for _, s := range append(secrets, "first line", "x hunter22hunter22 y") {
		must(t, j.Append(&state.Record{
			Kind: state.StepFailed, Text: "text " + s, Reason: s, Hint: []string{"deployer --token=" + s},
			Data: raw(t, map[string]any{"a": []any{s, 1}, s: map[string]string{"deep": "in " + s}}),
		}))
	}
	must(t, j.Append(&state.Record{Kind: state.Note, Data: json.RawMessage(`{"u":"\u0068unter22"}`)}))
	data := string(readJournal(t, dir))
	for _, word := range []string{"hunter", "unter22", "quo", "first", "second", "KEY", "sch"} {
		if strings.Contains(data, word) {
			t.Errorf("%q is in the journal:\n%s", word, data)
		}
	}
	if _, damage, _ := state.Read(dir); damage != nil {
		t.Fatal(damage)
	}
}

func TestRedactLeavesTheCallersDataAlone(t *testing.T) {
	j, _ := create(t)
	must(t, j.Redact("hunter22"))
	hints := []string{"hunter22"}
	rec := state.Record{Kind: state.Note, Hint: hints}
	must(t, j.Append(&rec))
	if hints[0] != "hunter22" || rec.Hint[0] != "[secret]" {
		t.Fatalf("%v, %v", hints, rec.Hint)
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	j, dir := create(t)
	if err := j.Redact("abc", "", "long enough"); err == nil || strings.Contains(err.Error(), "abc") {
		t.Fatalf("got %v", err)
	}
	must(t, j.Append(&state.Record{Kind: state.Note, Text: "abc long enough"}))
	if data := string(readJournal(t, dir)); !strings.Contains(data, `"abc [secret]"`) {
		t.Fatal(data)
	}
}

func TestHideCoversOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab]{0,20}`).Draw(t, "text")
		secrets := rapid.SliceOfN(rapid.StringMatching(`[ab]{4,6}`), 0, 4).Draw(t, "secrets")
		got := state.ForTestHide(text, secrets)
		for _, part := range strings.Split(got, "[secret]") {
			for _, s := range secrets {
				if strings.Contains(part, s) {
					t.Fatalf("%q is left in %q", s, got)
				}
			}
		}
	})
	if got := state.ForTestHide("abcdef", []string{"abcd", "cdef"}); got != "[secret]" {
		t.Fatal(got)
	}
}

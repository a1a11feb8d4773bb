package view

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/state"
)

// TestHumanAndJSONTellTheSame: JSON loses no event, and every event that has a
// line for people has exactly one, in the same order.
func TestHumanAndJSONTellTheSame(t *testing.T) {
	for name, recs := range map[string][]state.Record{"good": goodRun(), "failing": failingRun(), "stuck": stuckRun(), "unknown": unknownRun(), "waiting": waitingRun(), "rollback": rollbackRun()} {
		var human, machine bytes.Buffer
		h := NewHuman(&Streams{Out: &human, Err: &human, Width: 120}, time.UTC)
		h.Planned(thePlan())
		sinks := []phases.Sink{h, &JSON{W: &machine}}
		for _, rec := range recs {
			for _, s := range sinks {
				s.Event(rec)
			}
		}
		h.Close()
		var got []state.Record
		for sc := bufio.NewScanner(&machine); sc.Scan(); {
			var rec state.Record
			if err := json.Unmarshal(sc.Bytes(), &rec); err != nil {
				t.Fatal(err)
			}
			got = append(got, rec)
		}
		if d := cmp.Diff(recs, got); d != "" {
			t.Errorf("%s (-events +json):\n%s", name, d)
		}
		lines := strings.Split(strings.TrimRight(human.String(), "\n"), "\n")
		var want []state.Record
		for _, rec := range got {
			if _, ok := mark[rec.Kind]; ok || rec.Kind == state.RunCreated {
				want = append(want, rec)
			}
		}
		if len(lines) != len(want) {
			t.Fatalf("%s: %d lines for %d records", name, len(lines), len(want))
		}
		for i, rec := range want {
			step, _, _ := strings.Cut(rec.Step, "@")
			for _, part := range []string{rec.Time.Format("15:04:05"), step, rec.Host, words[rec.Kind]} {
				if !strings.Contains(lines[i], part) {
					t.Errorf("%s: %q does not say %q", name, lines[i], part)
				}
			}
		}
	}
}

// TestJSONKeepsProgressAndDropsTheChain: `--json` has all that is shown; the
// journal's hashes are its own.
func TestJSONKeepsProgressAndDropsTheChain(t *testing.T) {
	var b bytes.Buffer
	j := &JSON{W: &b}
	j.Event(state.Record{Kind: state.StepProgress, Text: "two\nlines", Prev: "abc"})
	if s := b.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "step.progress") || strings.Contains(s, "abc") {
		t.Errorf("got %s", s)
	}
}

// TestQuiet: only results.
func TestQuiet(t *testing.T) {
	var out, errs bytes.Buffer
	play(&Streams{Out: &out, Err: &errs, Width: 80, Quiet: true, TTY: true}, goodRun())
	if out.Len()+errs.Len() > 0 {
		t.Errorf("prints %s%s", &out, &errs)
	}
}

const poison = "\x1b[2J\x1b]0;gone\x07\u009b31m\r\b\x7f"

// poisoned is v with control characters in every text that is not one of our
// own words.
func poisoned[T any](t *testing.T, v T) (out T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(spoil("", tree)); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

func spoil(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = spoil(k, v[k])
		}
	case []any:
		for i := range v {
			v[i] = spoil(key, v[i])
		}
	case string:
		own := []string{"op", "kind", "status", "now", "time", "started", "ended", "updated", "since", "outcome", "class", "type", "content", "created", "written", "Status"}
		if !slices.Contains(own, key) {
			return v + poison + "!"
		}
	}
	return v
}

// TestNoControlCharacterOfAHostReachesTheTerminal: whatever hosts, Nix and
// files say, in every field of all that is shown.
func TestNoControlCharacterOfAHostReachesTheTerminal(t *testing.T) {
	bad := poisoned(t, thePlan())
	shows := map[string]func(*Streams){
		"plan": func(s *Streams) { s.Plan(bad, true) },
		"events": func(s *Streams) {
			h := NewHuman(s, time.UTC)
			h.Planned(bad)
			for _, recs := range [][]state.Record{goodRun(), stuckRun(), rollbackRun()} {
				for _, rec := range recs {
					h.Event(poisoned(t, rec))
				}
			}
		},
		"failure": func(s *Streams) {
			s.Failure(&phases.Failure{Phase: "a" + poison, Step: "b" + poison, Host: "c" + poison, Err: errors.New("d" + poison), Safe: "e" + poison, Hint: []string{"f" + poison}, Output: []string{"g" + poison}})
		},
		"outcome": func(s *Streams) {
			for _, exit := range []int{0, 1, 4, 5, 20, 22, 25, 26, 30, 31} {
				o := poisoned(t, &phases.Outcome{Exit: exit, Lanes: map[string]state.Status{"a": "new"}, Systems: map[string]string{"a": newSystem}, Remains: []string{"rm"}, Alerts: []string{"x"}})
				s.Outcome(o, Ended{Run: runID + poison, Report: "/x" + poison, Undoes: "u" + poison})
			}
		},
		"history": func(s *Streams) { s.History(badRows(t), time.UTC) },
		"show": func(s *Streams) {
			for _, r := range badRows(t) {
				s.Show(r, time.UTC)
			}
		},
		"report": func(s *Streams) {
			for _, r := range badRows(t) {
				s.Printf("%s", Report(r, bad, time.UTC))
			}
		},
		"status": func(s *Streams) {
			r := badRows(t)[3]
			f := poisoned(t, before(1))
			f.Failed, f.Unknown = []string{"u" + poison}, []string{poison}
			s.Status(Status{Last: &r, Hosts: []HostStatus{{Name: "a" + poison, Facts: &f}, {Name: "b" + poison, Problem: "c" + poison}}}, time.UTC)
		},
		"undo": func(s *Streams) {
			s.Undo(runID+poison, []Undo{poisoned(t, Undo{Host: "a", Now: before(1), Before: before(2), Operations: recipe(3)})})
		},
	}
	for name, show := range shows {
		var b, colour bytes.Buffer
		show(&Streams{Out: &b, Err: &b, Width: 80})
		show(&Streams{Out: &colour, Err: &colour, Width: 80, Color: true})
		if rest := styles.ReplaceAllString(colour.String(), ""); rest != Clean(rest) {
			t.Errorf("%s, in colour: %q", name, rest)
		}
		for line := range strings.Lines(b.String()) {
			if line = strings.TrimRight(line, "\n"); line != Clean(line) {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}

func badRows(t *testing.T) []Row {
	var out []Row
	for _, r := range rows() {
		out = append(out, poisoned(t, r))
	}
	return out
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "tab\there", poison, "\x1b[31mred\x1b[0m", "\x1b]8;;http://x\x1b\\link", "\xff\xfe", "ü€😀", "\x1bPq\x1b", "\u009d0;t\u009c", "a\x1b[", "\x9b2J"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		for _, r := range got {
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q leaves %q", s, got)
			}
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not UTF-8 any more: %q", s, got)
		}
		if again := Clean(got); again != got {
			t.Fatalf("%q: %q, and then %q", s, got, again)
		}
	})
}

func TestDuration(t *testing.T) {
	for sec, want := range map[float64]string{
		0: "0.0s", 0.04: "0.0s", 0.05: "0.1s", 9.99: "10.0s", 59.94: "59.9s", 59.96: "1m 00s", 60: "1m 00s", 61.9: "1m 01s", 250: "4m 10s",
		3599.9: "59m 59s", 3600: "1h 00m", 86399: "23h 59m", 90000: "25h 00m",
	} {
		if got := Duration(sec); got != want {
			t.Errorf("%v is %q, want %q", sec, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", -3 << 30: "-3.0 GiB", 5 << 40: "5.0 TiB", 2000 << 40: "2000.0 TiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestDiffLine(t *testing.T) {
	for _, c := range []struct {
		item nix.Item
		want string
	}{
		{nix.Item{Name: "a", Old: []string{"1"}, New: []string{"2"}}, "a: 1 → 2"},
		{nix.Item{Name: "a", Old: []string{"1", "1-bin"}, New: []string{"2"}, Bytes: 8 << 10}, "a: 1, 1-bin → 2, +8.0 KiB"},
		{nix.Item{Name: "a", New: []string{"2"}, Bytes: 8<<10 - 1}, "a: ∅ → 2"},
		{nix.Item{Name: "a", Old: []string{""}, Bytes: -9 << 10}, "a: ε → ∅, -9.0 KiB"},
		{nix.Item{Name: "etc", Old: []string{""}, New: []string{""}, Bytes: 20 << 10}, "etc: +20.0 KiB"},
		{nix.Item{Name: "a", Old: []string{"1"}, New: []string{"1"}, Bytes: -20 << 10}, "a: -20.0 KiB"},
	} {
		if got := DiffLine(c.item); got != c.want {
			t.Errorf("%+v is %q, want %q", c.item, got, c.want)
		}
	}
}

func TestColor(t *testing.T) {
	for _, c := range []struct {
		flag, no, force string
		tty, want       bool
	}{
		{"auto", "", "", true, true}, {"auto", "", "", false, false},
		{"auto", "1", "", true, false}, {"auto", "1", "1", true, false},
		{"auto", "", "1", false, true}, {"auto", "", "0", false, false},
		{"always", "1", "", false, true}, {"never", "", "1", true, false}, {"", "", "", true, true},
	} {
		t.Setenv("NO_COLOR", c.no)
		t.Setenv("CLICOLOR_FORCE", c.force)
		if got := color(c.flag, c.tty); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

func TestUTF8Locale(t *testing.T) {
	for _, c := range []struct {
		all, ctype, lang string
		want             bool
	}{
		{"", "", "", true}, {"", "", "C.UTF-8", true}, {"", "", "de_DE.utf8", true}, {"", "", "C", false}, {"POSIX", "", "en_US.UTF-8", false}, {"", "en_US.UTF-8", "C", true},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_CTYPE", c.ctype)
		t.Setenv("LANG", c.lang)
		if got := utf8Locale(); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// TestAFailureNeverClaimsTooMuch: with a code that no verdict knows, nobody is
// told that nothing was changed unless that is so.
func TestAFailureNeverClaimsTooMuch(t *testing.T) {
	for lane, want := range map[state.Status]bool{state.Untouched: true, state.Changing: false, state.Committed: false, state.Stuck: false, "": false} {
		for _, exit := range []int{1, 10, 15, 99} {
			var b bytes.Buffer
			(&Streams{Out: &b, Err: &b, Width: 80}).Outcome(&phases.Outcome{Exit: exit, Lanes: map[string]state.Status{"a": lane}}, Ended{Run: runID})
			if got := strings.Contains(b.String(), "nothing was changed"); got != want {
				t.Errorf("exit %d, lane %q: %s", exit, lane, &b)
			}
		}
	}
}

// TestTheRollbackIsAmongTheHints of a run that is stuck or out of reach, also
// where the step that failed has hints of its own.
func TestTheRollbackIsAmongTheHints(t *testing.T) {
	for _, exit := range []int{phases.ExitOK, phases.ExitUnhealthy, phases.ExitStuck, phases.ExitUnknown} {
		var b bytes.Buffer
		o := &phases.Outcome{Exit: exit, Failure: &phases.Failure{Exit: exit, Err: errors.New("x"), Hint: []string{"ssh web df"}}}
		if (&Streams{Out: &b, Err: &b, Width: 80}).Outcome(o, Ended{Run: runID}); !strings.Contains(b.String(), "deployer rollback "+runID) || !strings.Contains(b.String(), "ssh web df") {
			t.Errorf("exit %d: %s", exit, &b)
		}
	}
}

// Who works with -f pasted a hint, and it was about another project.
func TestHintsNameTheProjectThatWasNamed(t *testing.T) {
	for hint, want := range map[string]string{
		"deployer rollback r1   # undo it": "deployer -f 'a b' rollback r1   # undo it", "deployer run x -f 'a b' --yes": "deployer run x -f 'a b' --yes",
		"deployer '--project=a b' run": "deployer '--project=a b' run", "ssh web df": "ssh web df", "# deployer": "# deployer",
	} {
		if got := (&Streams{Project: "a b"}).Here(hint); got != want {
			t.Errorf("%q is %q, want %q", hint, got, want)
		}
	}
}

// A log of CI had only the begin of what steps had done.
func TestALogHasWholeLines(t *testing.T) {
	text := "keep a copy of 1 file with digests, and the checkout's state, and more that no terminal has room for"
	for log, want := range map[bool]bool{true: true, false: false} {
		var b bytes.Buffer
		h := NewHuman(&Streams{Out: &b, Err: &b, Width: 80, Log: log}, time.UTC)
		h.Event(state.Record{Kind: state.StepDone, Step: "backup/repository", Text: text, Elapsed: 2})
		if strings.Contains(b.String(), text) != want {
			t.Errorf("log %v: %s", log, &b)
		}
	}
}

// TestHintsForThisMachine: "local" is no name that ssh knows.
func TestHintsForThisMachine(t *testing.T) {
	for hint, want := range map[string]string{"ssh local df -h": "df -h", "ssh local 'a && b'": "sh -c 'a && b'", "ssh localhost df": "ssh localhost df", "# add": "# add"} {
		if got := (&Streams{}).Here(hint); got != want {
			t.Errorf("%q is %q, want %q", hint, got, want)
		}
	}
}

// Tries to undo a run that got stuck were open for ever, also when it was undone.
func TestStuckRollbackOfAnUndoneRunIsNotOpen(t *testing.T) {
	try := func(id string, now state.Status) Row {
		lane := map[state.Status]state.Status{state.RolledBack: state.Restored}[now]
		if lane == "" {
			lane = now
		}
		return Row{Run: &state.Run{ID: id, Type: "rollback", Undoes: "r1", Changed: true, Lanes: map[string]state.Lane{"web": {Status: lane}}}, Now: now}
	}
	of := func() Row {
		return Row{Run: &state.Run{ID: "r1", Lanes: map[string]state.Lane{"web": {Status: state.Committed}}}, Now: state.Succeeded}
	}
	rows := []Row{try("r3", state.Stuck), try("r2", state.OutOfReach), of()}
	if MarkUndone(rows); !rows[0].Open() || !rows[1].Open() {
		t.Error("what nobody settled is not open")
	}
	rows = []Row{try("r4", state.RolledBack), try("r3", state.Stuck), try("r2", state.OutOfReach), of()}
	MarkUndone(rows)
	for _, r := range rows {
		if r.Open() {
			t.Errorf("%s is open", r.ID)
		}
	}
	if resultWord(rows[1]) != "stuck" || rows[0].Undone != "" || rows[3].Undone != "r4" {
		t.Errorf("%+v", rows)
	}
}

func TestAVerbosePreviewNamesAllItKnows(t *testing.T) {
	d := Data{Preview: &agent.Preview{Coming: strings.Fields("a b c d e f g h i j k l"), Counts: agent.Counts{Coming: 43}}}
	for verbose, want := range map[bool]string{false: "/j\n                    … and 33 more (-v names up to 1000)\n", true: "/l\n                    … and 31 more\n"} {
		if is := (&Streams{Verbose: verbose}).Preview(d); !strings.HasSuffix(is, want) {
			t.Errorf("verbose %t:\n%s", verbose, is)
		}
	}
}

package runbooks_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/runbooks"
)

func TestConditionsHoldOverWhatWasMeasured(t *testing.T) {
	spread := func(p95 float64) map[string]any { return map[string]any{"p95": p95, "iops": p95} }
	for _, c := range []struct {
		kind, when string
		values     map[string]any
		want       bool
	}{
		{"disk", "", nil, true},
		{"disk", "used_percent < 85", map[string]any{"used_percent": 84.0}, true},
		{"disk", "used_percent < 85", map[string]any{"used_percent": 85.0}, false},
		{"disk", "not (used_percent > 85)", map[string]any{"used_percent": 86.0}, false},
		{"http", "status in [200, 204]", map[string]any{"status": 204.0}, true},
		{"http", "status in 200..299", map[string]any{"status": 300.0}, false},
		{"command", "code == 0 or code == 3", map[string]any{"code": 3.0}, true},
		{"metric", "after.p95 > baseline.p95 * 1.2", map[string]any{"after": spread(2), "baseline": spread(1)}, true},
		{"fio", "after.iops > baseline.iops * 1.2", map[string]any{"after": spread(1), "baseline": spread(1)}, false},
	} {
		got, err := (&runbooks.Check{Kind: c.kind, When: c.when}).Holds(c.values)
		if err != nil || got != c.want {
			t.Errorf("%s %s over %v: %v, %v", c.kind, c.when, c.values, got, err)
		}
	}
}

func TestNoDataNeverHolds(t *testing.T) {
	for when, values := range map[string]map[string]any{
		"not (used_percent > 85)":               {"used_percent": math.NaN()},
		"used_percent != 85":                    {},
		"used_percent < 85":                     {"used_percent": math.Inf(-1)},
		"free_percent > 1 or used_percent < 85": {"free_percent": 50.0, "used_percent": nil},
	} {
		held, err := (&runbooks.Check{Kind: "disk", When: when}).Holds(values)
		if held || err == nil || !strings.Contains(err.Error(), "no data for used_percent") {
			t.Errorf("%s over %v: %v, %v", when, values, held, err)
		}
	}
	c := &runbooks.Check{Kind: "metric", When: "not (after.p95 > 1)"}
	if held, err := c.Holds(map[string]any{"after": map[string]any{"p95": math.NaN()}}); held || err == nil {
		t.Errorf("%v, %v", held, err)
	}
	if held, err := c.Holds(nil); held || err == nil {
		t.Errorf("%v, %v", held, err)
	}
}

// The condition of a rule's check says what is wrong, also where a check of
// deployer.yaml, whose condition says what is right, is used by its name.
func TestARulesConditionSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	project := strings.Replace(goodProject, "{ok: ", "{full: {disk: /, when: \"used_percent < 85\"}, ok: ", 1)
	write(t, filepath.Join(dir, "deployer.yaml"), project)
	write(t, filepath.Join(dir, "r.yaml"), goodRunbook+
		"  - monitor: {for: 1h, rules: [full, {check: full, do: warn}, {disk: /, when: \"used_percent >= 85\"}]}\n")
	_, rb := load(t, dir, "r", nil)
	for i, r := range rb.Phases[3].Monitor.Rules {
		for used, want := range map[float64]bool{84: false, 86: true} {
			if wrong, err := r.Check.Holds(map[string]any{"used_percent": used}); err != nil || wrong != want {
				t.Errorf("rule %d at %v: %v, %v", i, used, wrong, err)
			}
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"250ms": 250 * time.Millisecond, "30s": 30 * time.Second, "1m30s": 90 * time.Second,
		"1.5h": 90 * time.Minute, "24h": 24 * time.Hour, "7d": 168 * time.Hour, "2w": 336 * time.Hour, "1d12h": 36 * time.Hour,
	} {
		if got, ok := runbooks.ForTestParse(text); got != want || !ok {
			t.Errorf("%s: %s %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s", "1", "-1s", "+1s", "1 s", "1s ", "1y", "1e9h", "0", "0ms", "53w", "99999999999999999999h", "5 minutes"} {
		if got, ok := runbooks.ForTestParse(text); ok || got != 0 {
			t.Errorf("%q is %s", text, got)
		}
	}
}

func TestEveryGoDurationOfSecondsIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := time.Duration(rapid.Int64Range(1, 365*24*3600).Draw(t, "seconds")) * time.Second
		if got, ok := runbooks.ForTestParse(want.String()); got != want {
			t.Fatalf("%s is %s (%v)", want, got, ok)
		}
	})
}

func TestDidYouMean(t *testing.T) {
	known := []string{"within", "when", "unit", "used_percent"}
	for word, want := range map[string]string{
		"witin": "within", "wihtin": "within", "Within": "within", "used_percnt": "used_percent",
		"w": "", "zzz": "", "completely": "", "": "",
	} {
		if want != "" {
			want = "did you mean `" + want + "`?"
		}
		if got := runbooks.ForTestMeant(word, known); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

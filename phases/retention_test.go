package phases_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// TestRetainGoesByOutcome has a host's runs as a line, the oldest first: `6c2`
// is one of 6 days ago that was committed and left two snapshots; r went back,
// o is open, s is stuck, l was released, - is unknown to the host, x is one of no record.
func TestRetainGoesByOutcome(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	keep := runbooks.Keep{GoodRuns: 2, FailedDays: 10, Most: 4}
	for _, tt := range []struct{ name, runs, kept, spare, released string }{
		{"the last good runs", "400c1 300c2 200c2 100c1", "200c2 100c1", "200c2", "300c2 400c1"},
		{"failed ones for some days", "90c1 30r2 11r1 9r2 1-1", "90c1 9r2 1-1", "9r2 1-1", ""},
		{"one that was undone is not good", "90c1 80r1 70c1 60r1", "90c1 70c1", "90c1", ""},
		{"what is open", "400o2 300s1 2c1 1c1 0c1", "400o2 300s1 1c1 0c1", "1c1", "2c1"},
		{"no more than so many", "9c1 6r1 5r1 4r1 3r1 2r1", "9c1 5r1 4r1 3r1 2r1", "5r1 4r1 3r1 2r1", ""},
		{"of an open run, however many", "90o1 6r1 5r1 4r1 3r1 2r1", "90o1 5r1 4r1 3r1 2r1", "5r1 4r1 3r1 2r1", ""},
		{"of a run that was released", "9l1 8c1 7c1", "8c1 7c1", "8c1", ""},
		{"of no record", "400x1", "400x1", "", ""},
		{"nothing", "", "", "", ""},
	} {
		var list []agent.Snapshot
		var lanes []agent.Lane
		for i, run := range strings.Fields(tt.runs) {
			var days, count int
			var how rune
			fmt.Sscanf(run, "%d%c%d", &days, &how, &count)
			id := fmt.Sprintf("%03d-%s", i, run)
			for range count {
				list = append(list, agent.Snapshot{Run: id, Created: now.Add(-time.Duration(days) * 24 * time.Hour), Recorded: how != 'x'})
			}
			l := agent.Lane{Run: id, Recipe: true}
			if how := map[rune]string{'c': "committed", 'r': "restored", 's': "stuck", 'l': "released"}[how]; how != "" {
				l.Closing = &agent.Closing{Outcome: how}
			}
			if how != '-' && how != 'x' {
				lanes = append(lanes, l)
			}
		}
		slices.Reverse(list)
		verdicts, released := phases.Retain(list, lanes, keep, now)
		runs := func(which func(phases.Kept) bool) string {
			var names []string
			for _, k := range verdicts {
				if _, name, _ := strings.Cut(k.Run, "-"); which(k) && !slices.Contains(names, name) {
					names = append(names, name)
				}
				if k.Why == "" || len(verdicts) != len(list) {
					t.Errorf("%s: %+v", tt.name, k)
				}
			}
			return strings.Join(names, " ")
		}
		if got := runs(func(k phases.Kept) bool { return k.Keep }); got != tt.kept {
			t.Errorf("%s: kept %q, want %q", tt.name, got, tt.kept)
		}
		if got := runs(func(k phases.Kept) bool { return k.Spare }); got != tt.spare {
			t.Errorf("%s: of these %q could go for space, want %q", tt.name, got, tt.spare)
		}
		for i := range released {
			_, released[i], _ = strings.Cut(released[i], "-")
		}
		if got := strings.Join(released, " "); got != tt.released {
			t.Errorf("%s: released %q, want %q", tt.name, got, tt.released)
		}
	}
}

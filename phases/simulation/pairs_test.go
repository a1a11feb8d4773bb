package simulation

import (
	"testing"
	"time"
)

func recording(w *world) { w.record = true }

func TestPairs(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			base := playWith(t, s, recording, nil)
			seen := map[likeness]int{} // how many second kills follow
			var first [][]crash
			for _, c := range base.found {
				if _, ok := seen[c.like]; !ok {
					seen[c.like] = 0
					first = append(first, []crash{c.crash})
				}
			}
			likes := map[string]likeness{}
			for _, c := range base.found {
				likes[c.crash.String()] = c.like
			}
			t.Logf("%d singles, %d unlike (%s)", len(base.found), len(first), time.Since(start))
			var second [][]crash
			eachWith(t, s, recording, first, func(r result) {
				seen[likes[r.plan[0].String()]] = len(r.found)
				for _, c := range r.found {
					if _, ok := seen[c.like]; !ok {
						seen[c.like] = 0
						second = append(second, []crash{r.plan[0], c.crash})
					}
				}
			})
			pairs := 0
			for _, c := range base.found {
				pairs += seen[c.like]
			}
			t.Logf("%d pairs, %d unlike (%s)", pairs, len(second), time.Since(start))
		})
	}
}

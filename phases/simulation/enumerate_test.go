package simulation

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashes are the kills that can be told from one another at a point.
func crashes(point string) (list []crash) {
	who, rest, _ := strings.Cut(point, ": ")
	host, part, _ := strings.Cut(who, " ")
	add := func(what string) *crash {
		list = append(list, crash{at: point, what: what, host: host})
		return &list[len(list)-1]
	}
	switch {
	case who == "controller":
		add("controller").host = ""
		if rest == "journal sync" || strings.HasSuffix(rest, " durable") {
			for _, c := range []cut{nothing, torn} {
				k := add("controller")
				k.host, k.cut = "", c
			}
		}
	case who == "plugin":
		add("plugin").host = ""
		add("controller").host = ""
	case part == "link":
		add("controller").host = ""
		add("link")
		add("link").away = 10 * time.Minute
		if strings.HasPrefix(rest, "send") {
			for _, h := range []string{"staging", "production"} {
				k := add("power")
				k.host, k.cut = h, nothing
			}
		}
	default:
		add("process")
		for _, c := range []cut{nothing, names, torn, all} {
			add("power").cut = c
		}
	}
	return list
}

// each plays many worlds, on all cores.
func each(t *testing.T, s *scenario, plans [][]crash, see func(result)) {
	eachWith(t, s, nil, plans, see)
}

func eachWith(t *testing.T, s *scenario, prepare func(*world), plans [][]crash, see func(result)) {
	var mu sync.Mutex
	next := 0
	t.Run("worlds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					i := next
					next++
					mu.Unlock()
					if i >= len(plans) {
						return
					}
					r := playWith(t, s, prepare, plans[i])
					mu.Lock()
					see(r)
					mu.Unlock()
				}
			})
		}
	})
}

func TestSingles(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			base := play(t, s)
			if len(base.wrong) > 0 {
				t.Fatalf("before anything is killed:\n%s", base)
			}
			var plans [][]crash
			for _, p := range base.trace {
				for _, k := range crashes(p) {
					plans = append(plans, []crash{k})
				}
			}
			bad, missed, ends := 0, 0, map[string]int{}
			each(t, s, plans, func(r result) {
				ends[fmt.Sprintf("exit %d, staging %s, production %s", r.exit, r.hosts["staging"], r.hosts["production"])]++
				if r.missed {
					missed++
				}
				if len(r.wrong) > 0 {
					if bad++; bad < 6 {
						t.Errorf("\n%s", r)
					}
				}
			})
			t.Logf("%d points, %d cases, %d missed, %d wrong, %s", len(base.trace), len(plans), missed, bad, time.Since(start).Round(time.Millisecond))
			for _, e := range slices.Sorted(maps.Keys(ends)) {
				t.Logf("%5d  %s", ends[e], e)
			}
		})
	}
}

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
		add("pause").host = ""
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
		if part != "serve" {
			add("stall").away = time.Minute
		}
		for _, c := range []cut{nothing, names, torn, all} {
			add("power").cut = c
		}
	}
	return list
}

// each plays many worlds, on all cores.
func each(t *testing.T, s *scenario, how recovery, prepare func(*world), plans [][]crash, see func(result)) {
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
					r := play(t, s, how, prepare, plans[i]...)
					mu.Lock()
					see(r)
					mu.Unlock()
				}
			})
		}
	})
}

func recording(w *world) { w.record = true }

// classes are the unlike ones of what was found: all that is alike is one case.
type classes map[likeness]int

func (seen classes) unlike(before []crash, found []candidate) (plans [][]crash) {
	for _, c := range found {
		if seen[c.like]++; seen[c.like] == 1 {
			plans = append(plans, append(slices.Clone(before), c.crash))
		}
	}
	return plans
}

// tally counts how worlds ended.
type tally struct {
	t                   *testing.T
	ends                map[string]int
	played, missed, bad int
}

func (y *tally) see(r result) {
	y.played++
	y.ends[fmt.Sprintf("exit %d, staging %s, production %s", r.exit, r.hosts["staging"], r.hosts["production"])]++
	if r.missed {
		y.missed++
	}
	if len(r.wrong) > 0 {
		if y.bad++; y.bad < 6 {
			y.t.Errorf("\n%s", r)
		}
	}
}

func (y *tally) print() {
	for _, e := range slices.Sorted(maps.Keys(y.ends)) {
		y.t.Logf("%6d  %s", y.ends[e], e)
	}
}

func (y *tally) enumerate(s *scenario, how recovery, keep func(crash) bool) {
	start := time.Now()
	base := play(y.t, s, how, recording)
	if len(base.wrong) > 0 || base.exit != s.exit {
		y.t.Fatalf("before anything is killed:\n%s", base)
	}
	base.found = slices.DeleteFunc(base.found, func(c candidate) bool { return !keep(c.crash) })
	first := classes{}.unlike(nil, base.found)
	each(y.t, s, how, nil, first, y.see)
	y.t.Logf("%s: %d points, %d single crashes, %d unlike, %d missed, %d wrong; %s", how, len(base.trace), len(base.found), len(first), y.missed, y.bad, time.Since(start).Round(time.Millisecond))
	y.print()
}

func every(crash) bool { return true }

// noResume is what resume does not depend on: who is killed while nobody is there
// to go on.
func ofController(k crash) bool { return k.what == "controller" && k.cut == "" }

func TestCrashes(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			for _, how := range []recovery{nobody, rollback, resume} {
				keep := every
				if how != resume {
					keep = ofController
				}
				(&tally{t: t, ends: map[string]int{}}).enumerate(s, how, keep)
			}
		})
	}
}

package simulation

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashes are the kills that can be told from one another at a point.
func crashes(point string, p *process) (list []crash) {
	who, rest, _ := strings.Cut(point, ": ")
	host, part, _ := strings.Cut(who, " ")
	rest, _, _ = strings.Cut(rest, " #")
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
			add("pause").host = ""
			k := add("sleep")
			k.host, k.away = "", 10*time.Minute
			for _, h := range []string{"staging", "production"} {
				k = add("power")
				k.host, k.cut = h, nothing
			}
		}
	default:
		add("process")
		if p.unit != "" && !p.began {
			add("stall").away = 25 * time.Second // longer than who asked for it waits
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

// singles plays the unlike crashes at one point. Of those that are alike to what
// another scenario had, which only differs in what comes later, it plays a few.
func (y *tally) singles(s *scenario, seen classes, how recovery, keep func(crash) bool) (first [][]crash) {
	start := time.Now()
	base := play(y.t, s, how, recording)
	if len(base.wrong) > 0 || base.exit != s.exit && how != nobody {
		y.t.Fatalf("before anything is killed:\n%s", base)
	}
	base.found = slices.DeleteFunc(base.found, func(c candidate) bool { return !keep(c.crash) })
	first = seen.unlike(nil, base.found)
	own := len(first)
	for i, plan := range (classes{}).unlike(nil, base.found) {
		if i%shared == 0 {
			first = append(first, plan)
		}
	}
	each(y.t, s, how, nil, first, y.see)
	y.t.Logf("%s: %d points, %d single crashes; played: %d unlike, %d shared; %d wrong; %s", how, len(base.trace), len(base.found), own, len(first)-own, y.bad, time.Since(start).Round(time.Millisecond))
	return first
}

var (
	pairsFlag = flag.Int("pairs", 60, "pairs of crashes that are played of each scenario")
	seedFlag  = flag.Uint64("seed", 0, "of the pairs; 0: a new one")
)

// pairs plays a sample of the unlike second crashes after a sample of first ones.
func (y *tally) pairs(s *scenario, first [][]crash) {
	start, seed, played, n := time.Now(), cmp.Or(*seedFlag, rand.Uint64()), y.played, *pairsFlag
	random := rand.New(rand.NewPCG(seed, 0))
	shuffled := func(p [][]crash, n int) [][]crash {
		random.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
		return p[:min(n, len(p))]
	}
	first = shuffled(first, max(n/10, 1))
	after := map[string][][]crash{}
	each(y.t, s, resume, recording, first, func(r result) { after[r.plan[0].String()] = classes{}.unlike(r.plan, r.found) })
	var second [][]crash
	all := 0
	for _, f := range first {
		of := after[f[0].String()]
		all += len(of)
		second = append(second, shuffled(of, (n+len(first)-1)/len(first))...)
	}
	each(y.t, s, resume, nil, second, y.see)
	y.t.Logf("pairs: %d of %d unlike ones after %d first crashes, -seed=%d; %d wrong; %s", y.played-played, all, len(first), seed, y.bad, time.Since(start).Round(time.Millisecond))
}

func every(crash) bool { return true }

// ofController are the crashes after which somebody, or nobody, goes on.
func ofController(k crash) bool { return k.what == "controller" && k.cut == "" }

const shared = 10 // one in so many

func TestCrashes(t *testing.T) {
	played, seen := 0, map[recovery]classes{resume: {}, rollback: {}, nobody: {}}
	for _, s := range scenarios {
		if testing.Short() && s.production.stuck {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			y := &tally{t: t, ends: map[string]int{}}
			y.singles(s, seen[nobody], nobody, ofController)
			y.singles(s, seen[rollback], rollback, ofController)
			if !testing.Short() {
				y.pairs(s, y.singles(s, seen[resume], resume, every))
			}
			y.print()
			played += y.played
		})
	}
	t.Logf("%d worlds were played", played)
}

package simulation

import (
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// site is the function of the agent that asks for a primitive.
func site() string {
	pcs := make([]uintptr, 20)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if _, name, ok := strings.Cut(f.Function, "/phases/agent."); ok {
			return strings.NewReplacer("(*", "", ")", "").Replace(name)
		}
		if !more {
			return "nowhere"
		}
	}
}

// sync passes a sync by; false: a mutation leaves it out.
func (w *world) syncs(what, name string) bool {
	if w.sites == nil && w.drop == "" {
		return true
	}
	label := what + " in " + site()
	if what == "sync" || what == "syncdir" {
		label += " of " + path.Base(nameless(name))
	}
	if w.sites != nil {
		w.mu.Lock()
		w.sites[label]++
		w.mu.Unlock()
	}
	return w.drop == "" || !strings.HasPrefix(label, w.drop)
}

func TestSites(t *testing.T) {
	r := play(t, scenarios[1], resume, func(w *world) { w.sites = map[string]int{} })
	for _, s := range slices.Sorted(maps.Keys(r.sites)) {
		t.Log(s, r.sites[s])
	}
}

package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// site is what one test works with: two hosts of the lab that no other test
// has now, a project that deploys to them, and a store of runs of its own.
//
// Tests run side by side, as many as the lab has pairs of hosts:
//
//	lab up staging production s2 p2
//	lab exec -- go test ./cmd/deployer -run Lab -parallel 2
type site struct {
	*testing.T
	pair
	dir   string // the project
	state string // XDG_STATE_HOME
}

// pair is two hosts; in deployer.yaml they are always staging and production.
type pair struct{ staging, production labtest.Host }

// used pairs get a fresh disk before the next test has them.
type slot struct {
	pair
	used bool
}

var slots = sync.OnceValue(func() chan slot {
	hosts := strings.Fields(os.Getenv("LAB_HOSTS"))
	if len(hosts) == 1 { // for tests that want no more
		hosts = append(hosts, hosts[0])
	}
	free := make(chan slot, len(hosts)/2)
	for i := 0; i+1 < len(hosts); i += 2 {
		free <- slot{pair: pair{labtest.Host(hosts[i]), labtest.Host(hosts[i+1])}}
	}
	return free
})

// labKind is what the lab was started as.
type labKind struct {
	Backend, Loader string
	Launcher, Trust bool
}

var usual = labKind{Backend: "container", Loader: "systemd-boot", Launcher: true, Trust: true}

// needLab skips a test that wants hosts of another kind.
func needLab(t *testing.T, want labKind, flags string) {
	t.Helper()
	labtest.Need(t)
	b, err := os.ReadFile(filepath.Join(filepath.Dir(os.Getenv("LAB_BIN")), "spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	var is labKind
	if err := json.Unmarshal(b, &is); err != nil {
		t.Fatal(err)
	}
	switch why := "needs another lab: lab up " + flags; { // .ci/lab has one of each kind
	case is != want && os.Getenv("DEPLOYER_NO_SKIP") == "1":
		t.Fatal(why)
	case is != want:
		t.Skip(why)
	}
}

// newSite waits for two hosts as they were after their first boot.
func newSite(t *testing.T) *site { return newSiteIn(t, usual, "staging production") }

func newSiteIn(t *testing.T, want labKind, flags string) *site {
	t.Helper()
	needLab(t, want, flags)
	sl := <-slots()
	t.Cleanup(func() { sl.used = true; slots() <- sl })
	if sl.used || worn(t, sl.staging) || worn(t, sl.production) {
		labtest.Fresh(t, sl.staging, sl.production)
	}
	s := &site{T: t, pair: sl.pair, dir: filepath.Join(t.TempDir(), "infra"), state: t.TempDir()}
	s.systems("{}", "{}")
	return s
}

// worn tells whether somebody has deployed to a host of a lab that was up before.
func worn(t *testing.T, h labtest.Host) bool {
	return h.Enter(t, "ls -d /nix/var/deployer/runs /nix/var/deployer/jobs /nix/var/nix/profiles/system-2-link 2>/dev/null || true") != ""
}

package cli

import (
	"slices"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// What no host could put back made a run that could not end, and blocked the host.
func TestRestoreOfTheSameTwiceOrOfNothingIsRefused(t *testing.T) {
	a, b := agent.Snapshot{UUID: "aaaaaaaa-1", FSID: "f", Origin: "persist"}, agent.Snapshot{UUID: "bbbbbbbb-1", FSID: "f", Origin: "services"}
	again, received, elsewhere := a, a, a
	again.UUID, received.Origin, elsewhere.FSID = "cccccccc-1", "", "g"
	for name, c := range map[string]struct {
		to   []agent.Snapshot
		exit int
	}{
		"two":                   {[]agent.Snapshot{a, b}, 0},
		"the same name":         {[]agent.Snapshot{a, elsewhere}, 0},
		"of one":                {[]agent.Snapshot{a, b, again}, phases.ExitUsage},
		"named twice":           {[]agent.Snapshot{a, a}, phases.ExitUsage},
		"a received copy of it": {[]agent.Snapshot{received}, phases.ExitUsage},
	} {
		err := together("production", c.to)
		if f := phases.AsFailure(err); (err == nil) != (c.exit == 0) || err != nil && (f.Exit != c.exit || len(f.Hint) == 0) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A restore of / rebooted the host, and nobody had been told.
func TestPreviewOfARootSaysThatTheHostIsRebooted(t *testing.T) {
	root, data := agent.Snapshot{UUID: "1", Source: "/"}, agent.Snapshot{UUID: "2", Source: "/data"}
	l := phases.NewLane(&runbooks.Host{Name: "one"}, nil)
	l.Seen.Boot.System = "/old"
	if got := rebootFor(l, root); got != "" {
		t.Errorf("a comparison reboots into %q", got)
	}
	l.GoBackTo([]agent.Snapshot{root, data}, nil)
	if into, not := rebootFor(l, root), rebootFor(l, data); into != "/old" || not != "" || !l.Reboots() {
		t.Errorf("reboot into %q, %q", into, not)
	}
}

// /etc/passwd was looked for as /etc/passwd below the subvolume.
func TestAFileOutsideOfTheSnapshotIsNotTakenAsBelowIt(t *testing.T) {
	for _, c := range []struct{ source, file, want string }{
		{"/var/lib/services", "app/x", "/app/x"}, {"/var/lib/services", "./app//x/", "/app/x"}, {"/var/lib/services", "/var/lib/services/app/x", "/app/x"},
		{"/", "/etc/passwd", "/etc/passwd"}, {"/", "etc/passwd", "/etc/passwd"}, {"", "x", "/x"},
		{"/var/lib/services", "/etc/passwd", ""}, {"/var/lib/services", "/var/lib/services2/x", ""}, {"/var/lib/services", "../x", ""}, {"/var/lib/services", "/var/lib/services/../x", ""},
		{"/var/lib/services", "/", ""}, {"/var/lib/services", "/var/lib/services/", ""}, {"/var/lib/services", ".", ""}, {"/", "/", ""}, {"", "/etc/passwd", ""},
	} {
		if got, err := inside(agent.Snapshot{Source: c.source}, c.file); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s in %q: %q, %v", c.file, c.source, got, err)
		}
	}
}

// --subvolume alone was answered with what --data is.
func TestASubvolumeWithoutDataIsToldWhatIsMissing(t *testing.T) {
	a, _ := newAsker("rollback", "--subvolume", "/persist")
	err := a.chooseData(t.Context(), &phases.Run{}, &rollbackOptions{subvolumes: []string{"/persist"}}, a)
	f := phases.AsFailure(err)
	if f.Exit != phases.ExitUsage || !slices.Contains(f.Hint, "deployer rollback --subvolume /persist --data restore") {
		t.Errorf("%+v", f)
	}
}

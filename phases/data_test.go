package phases_test

import (
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

// A restore of what is nested left the units running that work with it: they are
// declared for what it is nested in.
func TestUnitsOfWhatIsNestedStandStill(t *testing.T) {
	declared := &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/": {Stop: []string{"all"}}, "/data/": {Stop: []string{"db"}}, "/data/db/own": {Pause: []string{"own"}}}}
	for source, want := range map[string]string{"/": "all", "/data": "db", "/data/db": "db", "/data/db/own/x": "own", "/database": "all", "": ""} {
		l := phasetest.Make(t, "h1").Env().Lane
		l.GoBackTo([]agent.Snapshot{{UUID: "0123456789", Source: source}}, declared)
		if got := strings.Join(l.Recipe.Operations[0].Data.Snapshots[0].Units, " "); got != want {
			t.Errorf("%q: %q", source, got)
		}
	}
}

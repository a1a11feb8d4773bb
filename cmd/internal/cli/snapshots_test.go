package cli

import (
	"slices"
	"testing"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

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

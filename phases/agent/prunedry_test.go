package agent

import (
	"slices"
	"testing"
)

// A dry prune said that what a backup holds goes.
func TestADryDeletionSaysWhatStaysAsTheRealOneDoes(t *testing.T) {
	h := newTwoHosts(t, "a")
	kept, free := h.take("/disk/a")[0], h.take("/disk/a")[0]
	must(t, h.state.hold(HoldArgs{UUID: kept.UUID, By: "vault", Reason: "the next copy starts from it"}))
	must(t, h.state.hold(HoldArgs{UUID: free.UUID, By: backupRun})) // what take holds it for, no longer
	args := DeleteArgs{Snapshots: []Snapshot{kept, free, {UUID: "none", FSID: kept.FSID}}}
	dry, err := h.deleteDry(t.Context(), args)
	must(t, err)
	if !lexists(free.Path) {
		t.Error("a dry one deleted")
	}
	real, err := h.deleteSnapshots(t.Context(), args)
	must(t, err)
	real = slices.DeleteFunc(real, func(d Deleted) bool { return d.State != "refused" })
	if len(dry) != 1 || len(real) != 1 || dry[0].Why != real[0].Why || dry[0].UUID != real[0].UUID || dry[0].State != "refused" {
		t.Errorf("dry %+v, in fact %+v", dry, real)
	}
}

package proto

import "time"

// Event is one thing that happened, for notifications.
type Event struct {
	ID       string            `json:"id"` // delivery key: receivers drop what they have seen under it
	Run      string            `json:"run,omitempty"`
	Runbook  string            `json:"runbook,omitempty"`
	Kind     string            `json:"kind"`     // run, rollback, alert, window
	Severity string            `json:"severity"` // info, warning, critical
	Time     time.Time         `json:"time"`
	Title    string            `json:"title"`
	Text     string            `json:"text,omitempty"`
	Fields   map[string]string `json:"fields,omitempty"`
	ExitCode *int              `json:"exit_code,omitempty"` // where the event ends a run
}

// SnapshotRequest asks for one set of snapshots on one host.
type SnapshotRequest struct {
	Run         string      `json:"run"`
	HostRef     string      `json:"host"`      // to a plugin: a handle, good only during this call
	OperationID string      `json:"operation"` // the same whenever this is tried again
	Dir         string      `json:"dir,omitempty"`
	Stamp       string      `json:"stamp,omitempty"`      // UTC, 20060102T150405Z, for the names; the same whenever this is tried again
	Generation  int         `json:"generation,omitempty"` // that the host boots now, for the names
	Subvolumes  []Subvolume `json:"subvolumes"`
}

// Subvolume is one declared subvolume.
type Subvolume struct {
	Path       string   `json:"path"`
	OnRollback string   `json:"on_rollback,omitempty"` // keep, restore, ask
	Pause      []string `json:"pause,omitempty"`       // units that stand still while it is snapshotted
	Stop       []string `json:"stop,omitempty"`        // units that are stopped for that
}

// SnapshotPlan is what Create would do.
type SnapshotPlan struct {
	Problems []string `json:"problems,omitempty"` // why Create, or its recipe, would fail; empty: neither would
}

// SnapshotResult is what Create did, in the agent's own types: Set is a
// SnapshotSet, Recipe a list of Operation that undoes it, in its order.
type SnapshotResult[Set, Recipe any] struct {
	Set    Set    `json:"set"`
	Recipe Recipe `json:"recipe,omitempty"` // of what is to be restored; empty where a rollback keeps the data
}

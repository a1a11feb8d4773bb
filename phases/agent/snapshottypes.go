package agent

import (
	"path"
	"strings"
	"time"
)

// DiscoverArgs asks what backs the given mount points; empty: everything Btrfs.
type DiscoverArgs struct {
	Paths   []string `json:"paths"`
	Foreign bool     `json:"foreign,omitempty"` // of snapshots: also what others made
}

// Discovery is what was found.
type Discovery struct {
	Volumes     []Volume     `json:"volumes"`
	Filesystems []Filesystem `json:"filesystems,omitempty"` // each once
}

// Volume is one declared path and the subvolume behind it.
type Volume struct {
	Path     string   `json:"path"`
	Btrfs    bool     `json:"btrfs"`
	Root     bool     `json:"root"` // the path is a subvolume's root itself
	ID       uint64   `json:"id,omitempty"`
	UUID     string   `json:"uuid,omitempty"`
	Name     string   `json:"name,omitempty"` // path below the top level
	ReadOnly bool     `json:"read_only,omitempty"`
	Default  bool     `json:"default,omitempty"` // what mounts without subvol= get
	ByID     []string `json:"by_id,omitempty"`   // files that mount it by subvolid=: a restore would not reach them
	Swap     string   `json:"swap,omitempty"`    // an active swap file in it
	Own      bool     `json:"own,omitempty"`     // deployer's folder is a plain one in it: a restore would take back its memory
	Nested   []string `json:"nested,omitempty"`  // subvolumes below it: a snapshot leaves them empty
	FS       string   `json:"fs"`                // file system type, and its id below
	FSID     string   `json:"fsid,omitempty"`
	Problem  string   `json:"problem,omitempty"` // why it cannot be snapshotted, in words
}

// Filesystem is what matters of a Btrfs as a whole. Bytes of Data and Metadata
// are as its users see them, Total and Unallocated as its devices do.
type Filesystem struct {
	FSID         string   `json:"fsid"`
	Device       string   `json:"device"`
	Total        uint64   `json:"total"`
	Unallocated  uint64   `json:"unallocated"`
	Data         uint64   `json:"data"`
	DataSize     uint64   `json:"data_size"`
	Metadata     uint64   `json:"metadata"`
	MetadataSize uint64   `json:"metadata_size"`
	Reserve      uint64   `json:"reserve"` // of the metadata, for the kernel alone
	Copies       uint64   `json:"copies"`  // of metadata
	Missing      bool     `json:"missing,omitempty"`
	Operation    string   `json:"operation,omitempty"` // balance, device add, …: what runs now
	Quotas       bool     `json:"quotas,omitempty"`
	Sending      []string `json:"sending,omitempty"` // processes that send or receive now
}

// The consistencies of a set: what was between its first and its last snapshot.
const (
	Single  = "single"  // each is consistent in itself
	Paused  = "paused"  // Units were frozen
	Stopped = "stopped" // Units were stopped
)

// SnapshotArgs asks for one snapshot set: the subvolumes at Paths and those
// nested in them. Dir is a folder on the same Btrfs, outside every path of the
// set. The same Run and Stamp are the same set.
type SnapshotArgs struct {
	Run         string   `json:"run"`
	Dir         string   `json:"dir"`
	Stamp       string   `json:"stamp"` // UTC, 20060102T150405Z
	Paths       []string `json:"paths"`
	Generation  int      `json:"generation,omitempty"`
	Consistency string   `json:"consistency,omitempty"` // empty: single
	Units       []string `json:"units,omitempty"`       // whom to pause or stop
}

// SnapshotSet is what was taken, all of it or nothing.
type SnapshotSet struct {
	Snapshots   []Snapshot `json:"snapshots"`
	Consistency string     `json:"consistency,omitempty"` // that was achieved
	Paused      float64    `json:"paused,omitempty"`      // for so many seconds
}

// Snapshot is one snapshot, or what a restore has replaced.
type Snapshot struct {
	Source      string    `json:"source"` // mount point that it was taken of
	Path        string    `json:"path"`
	ID          uint64    `json:"id"`
	UUID        string    `json:"uuid"`
	ParentUUID  string    `json:"parent_uuid"`
	ReadOnly    bool      `json:"read_only"`
	Run         string    `json:"run,omitempty"`
	Created     time.Time `json:"created"`
	Changed     uint64    `json:"changed,omitempty"` // transaction of its last change
	FSID        string    `json:"fsid,omitempty"`
	Name        string    `json:"name,omitempty"`   // its path below the top level
	Origin      string    `json:"origin,omitempty"` // its source's
	Generation  int       `json:"generation,omitempty"`
	Consistency string    `json:"consistency,omitempty"`
	Maker       string    `json:"maker,omitempty"`    // deployer, snapper, btrbk, impermanence, somebody
	Replaced    bool      `json:"replaced,omitempty"` // by a restore: writable, as it was left
	Recorded    bool      `json:"recorded,omitempty"` // this agent made it, and knows so
	Policy      string    `json:"policy,omitempty"`   // keep, restore, ask: what a rollback does with it; the controller's word
	Units       []string  `json:"units,omitempty"`    // declared for its source: a restore stops them, whatever they have open
}

// Data is which snapshots to go back to, together. Of each, FSID, UUID and
// Origin say what becomes what.
type Data struct {
	Snapshots []Snapshot `json:"snapshots"`
	Itself    bool       `json:"itself,omitempty"` // not a copy: the subvolume that the snapshot was taken of gets its name again
	Stay      bool       `json:"stay,omitempty"`   // leave stopped what was stopped, for start-stopped
}

// Nearest is what was declared of a path, or of the nearest that it is nested in;
// the zero T if nothing was.
func Nearest[T any](declared map[string]T, at string) (of T) {
	near := ""
	for p, d := range declared {
		in := path.Clean(p)
		if nested := strings.HasPrefix(at, strings.TrimSuffix(in, "/")+"/"); (at == in || nested) && len(in) > len(near) {
			near, of = in, d
		}
	}
	return of
}

// WayBack goes back to snapshots: before and after what ran then is activated.
func WayBack(to []Snapshot) []Operation {
	if len(to) == 0 {
		return nil
	}
	return []Operation{{Op: DoData, Data: &Data{Snapshots: to, Stay: true}}, {Op: DoStart}}
}

// Return gives a root that a boot of another layout has put away its name again.
func Return(root Snapshot) Operation {
	return Operation{Op: DoData, Data: &Data{Snapshots: []Snapshot{root}, Itself: true, Stay: true}}
}

// PreviewArgs asks what would go back. Max bounds the list of files.
type PreviewArgs struct {
	Snapshot Snapshot `json:"snapshot"`
	Max      int      `json:"max,omitempty"`  // 0: 1000
	Pins     bool     `json:"pins,omitempty"` // also how much the snapshot holds that nothing else may
}

// Preview is what a restore would do to files: paths are those of the subvolume.
type Preview struct {
	Lost      []string `json:"lost"`     // there now, not in the snapshot
	Reverted  []string `json:"reverted"` // changed since
	Coming    []string `json:"coming"`   // deleted since
	Moved     []Moved  `json:"moved"`
	Counts    Counts   `json:"counts"`              // also of what the lists are cut by
	Bytes     uint64   `json:"bytes"`               // of files that were written since
	Pinned    uint64   `json:"pinned,omitempty"`    // bytes that the snapshot has and the live one has not: at most so much goes with it
	Temporary string   `json:"temporary,omitempty"` // the snapshot that was taken for this, and deleted
}

// Moved is a file with two paths: in the snapshot, and now.
type Moved struct {
	Then string `json:"then"`
	Now  string `json:"now"`
}

// Counts is how many files a restore would do something to.
type Counts struct {
	Lost     int `json:"lost"`
	Reverted int `json:"reverted"`
	Coming   int `json:"coming"`
	Moved    int `json:"moved"`
}

// FilesArgs asks for a file or folder out of a snapshot. What is there already
// is kept beside it.
type FilesArgs struct {
	Snapshot Snapshot `json:"snapshot"`
	Path     string   `json:"path"` // in the snapshot
	To       string   `json:"to"`   // on the host
}

// FilesResult is what was done.
type FilesResult struct {
	Kept  string `json:"kept,omitempty"`  // what was there before
	There bool   `json:"there,omitempty"` // of a dry one: something is there
}

// DeleteArgs names snapshots by uuid.
type DeleteArgs struct {
	Snapshots []Snapshot `json:"snapshots"`
	Wait      float64    `json:"wait,omitempty"` // seconds, for their space
}

// Deleted is what became of each.
type Deleted struct {
	UUID  string `json:"uuid"`
	State string `json:"state"` // freed, later, gone, refused
	Why   string `json:"why,omitempty"`

	v  *volumes
	id uint64
}

// HoldArgs keeps a snapshot from being deleted, or no longer does.
type HoldArgs struct {
	UUID   string `json:"uuid"`
	By     string `json:"by"`     // a backup chain, a person, a run
	Reason string `json:"reason"` // empty: hold no longer
}

package agent

import "encoding/json"

// Request is one line that the controller sends: an operation by name. Epoch is
// the one that the controller holds on this host; a write under another one is
// refused. Records become durable in the lane's journal before the operation.
type Request struct {
	ID      uint64          `json:"id"`
	Op      string          `json:"op"`
	Args    json.RawMessage `json:"args,omitempty"`
	Epoch   uint64          `json:"epoch,omitempty"`
	Records *Records        `json:"records,omitempty"`
}

// Records are lines of a run's journal, opaque to the agent.
type Records struct {
	Run   string            `json:"run"`
	Lines []json.RawMessage `json:"lines"`
}

// Response is one line that the agent sends back, under the request's ID.
type Response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is what an operation could not do. Code is for callers that branch.
type Error struct {
	Code    string   `json:"code"` // locked, open-run, fenced, restoring, confirmed, not-found, invalid, failed, …
	Message string   `json:"message"`
	Hint    []string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// The names of the operations that an agent serves. Writes, and never its
// caller, says whether one reads or writes.
const (
	OpHello     = "hello"          // → Hello
	OpFacts     = "facts"          // FactsArgs → Facts
	OpLock      = "lock"           // LockArgs → Holder; error locked, open-run, fenced
	OpUnlock    = "unlock"         // Unlocking → Holder: takes the lock from whoever has it
	OpLane      = "lane"           // LaneArgs → Lane: what the host knows of a run
	OpLanes     = "lanes"          // → []Lane: all runs, newest first
	OpRecords   = "records"        // RecordsArgs → RecordsPart
	OpJournal   = "journal"        // nothing but the request's records
	OpArm       = "guard.arm"      // Arming → Guard: answers when the watcher watches
	OpExtend    = "guard.extend"   // RunRef → Guard: the budget again, up to the cap
	OpAnnounce  = "guard.announce" // Announcing → Guard: the next boot is meant
	OpConfirm   = "confirm"        // RunRef → Decision; error restoring
	OpExec      = "exec"           // ExecArgs → ExecResult: a short command, as a child of the agent
	OpProbe     = "probe"          // Probe → Sample: one look at one thing
	OpJobStart  = "job.start"      // Job → Receipt: a transient unit that outlives the connection
	OpJobWait   = "job.wait"       // JobRef → Receipt: answers when it ended or after Wait
	OpJobOutput = "job.output"     // OutputArgs → Output: the unit's journal from a cursor on
	OpPin       = "pin"            // Pin: a GC root
	OpApply     = "apply"          // Operation → Outcome: one typed operation, now
	OpRecipePut = "recipe.put"     // Recipe: durable as recipe.json and RESTORE.txt before it answers
	OpRecipeGet = "recipe.get"     // RunRef → Recipe
	OpRestore   = "restore"        // RunRef → Receipt: claims the restore and runs the stored recipe as a job of its own
	OpClose     = "close"          // Closing: the lane is over; says how
	OpFileGet   = "file.get"       // FileRef → File
	OpDiscover  = "btrfs.discover" // DiscoverArgs → Discovery
	OpSnapshot  = "btrfs.snapshot" // SnapshotArgs → SnapshotSet: read-only, durable when it answers
	OpCancel    = "cancel"         // ID of a request: end it early, if it is a read; no answer of its own
	OpSnapshots = "btrfs.list"     // DiscoverArgs → []Snapshot made by deployer
	OpPreview   = "btrfs.preview"  // PreviewArgs → Preview: may take and delete a temporary snapshot
	OpFiles     = "btrfs.files"    // FilesArgs → FilesResult: single files out of a snapshot
	OpFilesDry  = "btrfs.dryfile"  // FilesArgs → FilesResult: whether it could be done
	OpBackup    = "btrfs.backup"   // SnapshotArgs → []Snapshot: a set for the backup host, held
	OpCopied    = "btrfs.copied"   // Snapshot → []Deleted: it is complete; those before it go
	OpCopies    = "btrfs.copies"   // CopiesArgs → []Copy: what a backup host has, oldest first
	OpDelete    = "btrfs.delete"   // DeleteArgs → []Deleted: only what nothing can want any more
	OpDeleteDry = "btrfs.drydel"   // DeleteArgs → []Deleted: only those that would stay, and why
)

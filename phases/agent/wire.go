package agent

import "encoding/json"

// Request is one line that the controller sends: an operation by name.
type Request struct {
	ID   uint64          `json:"id"`
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// Response is one line that the agent sends back, under the request's ID.
type Response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is what an operation could not do. Code is for callers that branch.
type Error struct {
	Code    string   `json:"code"` // locked, not-found, invalid, failed, busy, exists, not-btrfs, no-space, …
	Message string   `json:"message"`
	Hint    []string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// The names of the operations that an agent serves. Writes, and never its
// caller, says whether one reads or writes.
const (
	OpHello     = "hello"          // → Hello
	OpFacts     = "facts"          // FactsArgs → Facts
	OpLock      = "lock"           // Holder → Holder; error locked
	OpExec      = "exec"           // ExecArgs → ExecResult: a short command, as a child of the agent
	OpProbe     = "probe"          // Probe → Sample: one look at one thing
	OpJobStart  = "job.start"      // Job → Receipt: a transient unit that outlives the connection
	OpJobWait   = "job.wait"       // JobRef → Receipt: answers when it ended or after Wait
	OpJobOutput = "job.output"     // OutputArgs → Output: the unit's journal from a cursor on
	OpPin       = "pin"            // Pin: a GC root
	OpApply     = "apply"          // Operation → Outcome: one typed operation, now
	OpRecipePut = "recipe.put"     // Recipe: durable as recipe.json and RESTORE.txt before it answers
	OpRecipeGet = "recipe.get"     // RunRef → Recipe
	OpRestore   = "restore"        // RunRef → Receipt: runs the stored recipe as a job of its own
	OpClose     = "close"          // Closing: the lane is over; says how
	OpFileGet   = "file.get"       // FileRef → File
	OpDiscover  = "btrfs.discover" // DiscoverArgs → Discovery
	OpSnapshot  = "btrfs.snapshot" // SnapshotArgs → SnapshotSet: read-only, durable when it answers
	OpCancel    = "cancel"         // ID of a request: end it early, if it is a read; no answer of its own
	OpSnapshots = "btrfs.list"     // DiscoverArgs → []Snapshot made by deployer
)

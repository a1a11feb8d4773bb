package agent

import (
	"encoding/json"
	"time"
)

// Hello is how an agent introduces itself.
type Hello struct {
	Digest string `json:"digest"` // sha256 of the running agent
	BootID string `json:"boot_id"`
	Arch   string `json:"arch"` // GOARCH
}

// FactsArgs says what to look at beside the system itself.
type FactsArgs struct {
	Brief bool     `json:"brief,omitempty"` // leave out what only planning and doctor use
	Paths []string `json:"paths,omitempty"` // file systems whose space matters
	Files []string `json:"files,omitempty"` // files whose digest is wanted
}

// Facts is what a host is at one moment. What could not be learned is empty and
// named in Unknown: it is never guessed.
type Facts struct {
	Hostname       string              `json:"hostname"`
	Arch           string              `json:"arch"` // uname -m
	Kernel         string              `json:"kernel"`
	BootID         string              `json:"boot_id"`
	OS             string              `json:"os"` // ID of os-release: nixos
	User           string              `json:"user"`
	Root           bool                `json:"root"`
	Nix            string              `json:"nix"`     // version
	Systemd        string              `json:"systemd"` // version
	System         string              `json:"system"`  // /run/current-system, resolved
	Booted         string              `json:"booted"`  // /run/booted-system, resolved
	Specialisation string              `json:"specialisation,omitempty"`
	Profile        Profile             `json:"profile"`
	Boot           Boot                `json:"boot"`
	Failed         []string            `json:"failed"`           // units that are failed now
	Active         []string            `json:"active,omitempty"` // units that are active now
	Space          []Space             `json:"space"`
	Files          map[string]string   `json:"files,omitempty"`    // path → sha256, "" where there is none
	SwitchLocked   bool                `json:"switch_locked"`      // somebody holds switch-to-configuration's lock
	OpenRun        string              `json:"open_run,omitempty"` // a lane that was never closed on this host
	Holder         *Holder             `json:"holder,omitempty"`   // who holds the host's lock now
	Rejected       map[string]Rejected `json:"rejected,omitempty"` // systems that failed here before, by path
	Launcher       bool                `json:"launcher"`           // Dir/agent is there
	Sudo           string              `json:"sudo,omitempty"`     // "", or why sudo -n of the launcher does not work
	Trusted        *bool               `json:"trusted,omitempty"`  // may this user import unsigned paths
	TrustedKeys    []string            `json:"trusted_keys,omitempty"`
	Module         bool                `json:"module"` // the running system resumes a guard after a reboot: deployer-host.nix
	StateDir       *StateDir           `json:"state_dir,omitempty"`
	Pending        []string            `json:"pending,omitempty"` // of kernel, initrd, kernel-modules: what is not what was booted
	BootBytes      uint64              `json:"boot_bytes"`        // of the running system's kernel and initrd
	Foreign        []string            `json:"foreign,omitempty"` // units and files of other tools that switch this host
	Missing        []string            `json:"missing,omitempty"` // programs that the agent calls
	Time           time.Time           `json:"time"`
	Unknown        []string            `json:"unknown,omitempty"`
}

// StateDir is the agent's folder, as anybody may see it.
type StateDir struct {
	Mode      uint32 `json:"mode"`
	Owner     int    `json:"owner"`
	FS        string `json:"fs"`
	Subvolume bool   `json:"subvolume"` // of its own: in no other one's snapshots
}

// Profile is the system profile: what the host would boot after the next
// `switch-to-configuration boot`.
type Profile struct {
	Path        string       `json:"path"`       // /nix/var/nix/profiles/system
	Generation  int          `json:"generation"` // the current one's number
	System      string       `json:"system"`     // the current one's store path
	Generations []Generation `json:"generations,omitempty"`
}

// Generation is one numbered entry of a profile.
type Generation struct {
	Number int    `json:"number"`
	System string `json:"system"`
}

// Boot is what the boot loader does by itself at the next boot.
type Boot struct {
	Loader  string `json:"loader"`             // systemd-boot, grub, or "" where neither was found
	Default string `json:"default"`            // the entry's name (systemd-boot) or the first entry's title (GRUB)
	System  string `json:"system"`             // the toplevel that the default entry starts
	Digest  string `json:"digest"`             // sha256 over loader.conf and its entries, or over grub.cfg
	OneShot string `json:"one_shot,omitempty"` // what the next boot alone starts, if that is something else
}

// Space is the room on one file system, in bytes.
type Space struct {
	Path  string `json:"path"`
	FS    string `json:"fs"`
	Total uint64 `json:"total"`
	Free  uint64 `json:"free"`
}

// Holder is who holds a host's lock, and why. The file that it is kept in is
// also the host's memory of the highest epoch: with no Run the lock is free.
type Holder struct {
	Run    string    `json:"run,omitempty"`
	Owner  string    `json:"owner,omitempty"` // user@machine
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	BootID string    `json:"boot_id,omitempty"`
	Epoch  uint64    `json:"epoch"`
	Live   bool      `json:"live"` // its controller is connected: seen when asked, not stored
}

// LockArgs asks for a host's lock. With an Epoch the caller says that it has
// the lock already, over another connection. Without one it becomes the next
// writer, above AtLeast and above all that the host saw: of a free host, or with
// Take of one that the same run holds.
type LockArgs struct {
	Run     string `json:"run"`
	Owner   string `json:"owner"`
	Reason  string `json:"reason,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	AtLeast uint64 `json:"at_least,omitempty"`
	Take    bool   `json:"take,omitempty"`
	Force   bool   `json:"force,omitempty"` // although another run was never closed (it is that one's rollback)
	Plan    []byte `json:"plan,omitempty"`  // kept with the run, for whoever goes on with it
}

// Unlocking takes a run's lock away. The lane stays open.
type Unlocking struct {
	Run    string `json:"run"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Arming is what a guard is to do: go back after Budget seconds without a
// decision, whatever extends that after Cap seconds.
type Arming struct {
	Run    string  `json:"run"`
	Budget float64 `json:"budget"`
	Cap    float64 `json:"cap"`
	To     string  `json:"to,omitempty"` // the system that is tried: rejected if the guard fires
}

// Announcing tells the guard that the next boot is meant, and how many seconds
// a decision may take after it.
type Announcing struct {
	Run    string  `json:"run"`
	Budget float64 `json:"budget"`
}

// Guard is the dead-man's switch of a lane. Times are seconds of
// CLOCK_BOOTTIME of the boot BootID. A lane is decided once in each Round; undoing
// what was confirmed is the next one.
type Guard struct {
	Arming
	Round     int     `json:"round"`
	BootID    string  `json:"boot_id"`
	Armed     float64 `json:"armed"`
	Deadline  float64 `json:"deadline"`
	Claim     float64 `json:"claim,omitempty"`     // how long a controller may take for the restore that it claimed
	Announced float64 `json:"announced,omitempty"` // seconds that are left after the boot that is meant
	Tries     int     `json:"tries,omitempty"`
	Left      float64 `json:"left,omitempty"` // until Deadline: seen when asked, not stored
}

// Decision is how a round of a lane was decided: by whoever came first.
type Decision struct {
	Round    int       `json:"round"`
	Decision string    `json:"decision"` // confirmed, restoring
	By       string    `json:"by"`       // controller, guard, person
	Epoch    uint64    `json:"epoch,omitempty"`
	BootID   string    `json:"boot_id"`
	Time     time.Time `json:"time"`
}

// The decisions, and who makes them.
const (
	Confirmed    = "confirmed"
	Restoring    = "restoring"
	ByController = "controller"
	ByGuard      = "guard"
	ByPerson     = "person"
)

// LaneArgs asks what a host knows of a run.
type LaneArgs struct {
	Run  string `json:"run"`
	Plan bool   `json:"plan,omitempty"` // with the plan that was kept
}

// Lane is what a host knows of a run.
type Lane struct {
	Run      string    `json:"run"`
	Holder   Holder    `json:"holder"` // the host's, whichever run that is
	Recipe   bool      `json:"recipe"` // the run's undo is stored: it may have changed the host
	Guard    *Guard    `json:"guard,omitempty"`
	Watching bool      `json:"watching,omitempty"` // a watcher lives
	Decision *Decision `json:"decision,omitempty"` // of the present round
	Closing  *Closing  `json:"closing,omitempty"`  // of the present round
	Restore  *Receipt  `json:"restore,omitempty"`  // the last restore of the present round
	Plan     []byte    `json:"plan,omitempty"`
}

// Open tells whether the lane was changed and its end is not known to the host.
func (l Lane) Open() bool { return l.Recipe && (l.Closing == nil || l.Closing.Outcome == "stuck") }

// RecordsArgs asks for a run's journal from line From on.
type RecordsArgs struct {
	Run  string `json:"run"`
	From int    `json:"from"`
}

// RecordsPart is a part of it; Next is 0 at the end.
type RecordsPart struct {
	Lines []json.RawMessage `json:"lines"`
	Next  int               `json:"next,omitempty"`
}

// Rejected is why a system is not tried again.
type Rejected struct {
	Run    string    `json:"run"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// ExecArgs is a short command that the agent runs as its child, as root.
type ExecArgs struct {
	Args    []string      `json:"args"`
	Env     []string      `json:"env,omitempty"`
	Timeout time.Duration `json:"timeout"` // nanoseconds; its whole process group ends then
}

// ExecResult is how it ended.
type ExecResult struct {
	Code     int    `json:"code"`
	Signal   string `json:"signal,omitempty"`
	TimedOut bool   `json:"timed_out,omitempty"`
	Stdout   []byte `json:"stdout,omitempty"` // cut to the last 256 KiB
	Stderr   []byte `json:"stderr,omitempty"`
}

// Job is a command that outlives the connection: a transient unit of its own.
type Job struct {
	Unit string   `json:"unit"` // unique: deployer-<run>-<step>-<attempt>.service
	Run  string   `json:"run"`
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`

	// Operation, instead of Args, is done and judged inside the job; its
	// Outcome is the receipt's Result. This is how an activation outlives SSH.
	Operation *Operation `json:"operation,omitempty"`

	Timeout time.Duration `json:"timeout"`          // 0: none; it is stopped then
	Commit  bool          `json:"commit,omitempty"` // no decision is made while it runs
	Epoch   uint64        `json:"epoch,omitempty"`  // that it was asked for under: set by the agent
}

// JobRef names a job. Wait is how long to wait for its end before answering.
type JobRef struct {
	Unit string        `json:"unit"`
	Wait time.Duration `json:"wait,omitempty"`
}

// Receipt is what the host itself recorded of a job: fsynced when it started,
// fsynced again when it ended.
type Receipt struct {
	Unit    string    `json:"unit"`
	Run     string    `json:"run"`
	State   string    `json:"state"` // started, ended, lost (started, but neither running nor ended)
	Code    int       `json:"code"`
	Signal  string    `json:"signal,omitempty"`
	Timeout bool      `json:"timeout,omitempty"` // ended because its time was over
	BootID  string    `json:"boot_id"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Result  []Outcome `json:"result,omitempty"` // of a restore: one per operation
	Round   int       `json:"round,omitempty"`  // of a restore
	By      string    `json:"by,omitempty"`     // of a restore: who runs it
}

// OutputArgs asks for what a unit printed after Cursor ("" from the job's start).
type OutputArgs struct {
	Unit   string `json:"unit"`
	Cursor string `json:"cursor,omitempty"`
	Max    int    `json:"max,omitempty"` // lines, the last ones; 0: 1000
}

// Output is a part of a unit's journal.
type Output struct {
	Lines  []string `json:"lines"`
	Cursor string   `json:"cursor"`
}

// Pin is a GC root that keeps a store path for a run.
type Pin struct {
	Run  string `json:"run"`
	Name string `json:"name"`
	Path string `json:"path"`
}

// RunRef names a run on this host.
type RunRef struct {
	Run string `json:"run"`
}

// Closing says how a lane ended. A closed lane no longer blocks other runs.
type Closing struct {
	Run      string `json:"run"`
	Outcome  string `json:"outcome"` // committed, restored, stuck, untouched; Released
	Round    int    `json:"round,omitempty"`
	By       string `json:"by,omitempty"`
	Rejected string `json:"rejected,omitempty"` // the system that failed, and
	Reason   string `json:"reason,omitempty"`   // why
}

// Released is the outcome of a lane that ended long ago and is not to be undone
// any more: its pins are gone.
const Released = "released"

// The typed operations. A recipe is a list of them; so is what a step does.
const (
	DoStopJob   = "stop-job"      // Unit: end a job that may still run, and wait until its processes are gone
	DoActivate  = "activate"      // System, Action: switch-to-configuration Action, then /run/current-system must be System
	DoProfile   = "set-profile"   // Profile, Generation or System: set it, read it back; Drop: generation to remove afterwards
	DoBoot      = "set-boot"      // System, Loader, Default: nothing if the boot default is that already; else System's `boot`, read back
	DoWriteFile = "write-file"    // Path, Digest, Mode, Owner, Content from the run's folder; or Link; neither removes it
	DoUnits     = "units"         // Units: those must be active in the end; start what is not
	DoUnpin     = "unpin"         // Name
	DoTrial     = "trial"         // System, Boot: the next boot alone starts System, later ones Boot.System as before; without System: no trial any more
	DoData      = "restore-data"  // Data: subvolumes become what they were in snapshots; what they replace is kept
	DoStart     = "start-stopped" // starts what restore-data stopped and left so
	DoReboot    = "reboot"        // System: unless it is what was booted, or the boot is still BootID, and no restored root waits for it; seen from outside, never done by itself
)

// Operation is one typed operation with exact ids and paths, never "the
// previous one". It can be done again: done already is success.
type Operation struct {
	Op         string   `json:"op"`
	System     string   `json:"system,omitempty"`
	Action     string   `json:"action,omitempty"`
	Special    string   `json:"specialisation,omitempty"`
	Profile    string   `json:"profile,omitempty"`
	Generation int      `json:"generation,omitempty"`
	Drop       int      `json:"drop,omitempty"` // only if the generation's path is DropSystem
	DropSystem string   `json:"drop_system,omitempty"`
	Boot       *Boot    `json:"boot,omitempty"`
	Unit       string   `json:"unit,omitempty"`
	Units      []string `json:"units,omitempty"`
	Allow      []string `json:"allow_failed,omitempty"` // units that were failing before: they do not count
	Path       string   `json:"path,omitempty"`
	Digest     string   `json:"digest,omitempty"`
	Content    []byte   `json:"content,omitempty"`
	Mode       uint32   `json:"mode,omitempty"`
	Owner      *Owner   `json:"owner,omitempty"` // nil: as it is
	Link       string   `json:"link,omitempty"`  // of write-file: a symbolic link, with this in it
	Name       string   `json:"name,omitempty"`
	BootID     string   `json:"boot_id,omitempty"`
	Data       *Data    `json:"data,omitempty"`
}

// Outcome is what one operation did.
type Outcome struct {
	Op      Operation `json:"op"`
	State   string    `json:"state"` // done, already, failed
	Code    int       `json:"code,omitempty"`
	Message string    `json:"message,omitempty"`
	Hint    []string  `json:"hint,omitempty"`   // what a person types to do the same
	Took    float64   `json:"took"`             // seconds
	Unit    string    `json:"unit,omitempty"`   // the job that it ran as, for its output
	Intact  bool      `json:"intact,omitempty"` // of restore-data that failed: nothing was touched, or all of it taken back
	Kept    []string  `json:"kept,omitempty"`   // of restore-data: the uuids of what it has replaced
}

// Recipe is the undo of a lane, in the order in which it runs. Facts is what
// the host was before: what a restore is compared with.
type Recipe struct {
	Run        string      `json:"run"`
	Host       string      `json:"host"`
	Written    time.Time   `json:"written"`
	Operations []Operation `json:"operations"`
	Before     Facts       `json:"before"`
	Snapshots  []Snapshot  `json:"snapshots,omitempty"`
}

// FileRef names a file; File is its content.
type FileRef struct {
	Path string `json:"path"`
	Max  int64  `json:"max"` // bytes; larger is error invalid
}

// File is a file of the host. Digest is empty where there is none. Of a link,
// digest, mode, owner and content are those of the file that it leads to.
type File struct {
	Path    string `json:"path"`
	Digest  string `json:"digest"`
	Mode    uint32 `json:"mode"`
	Owner   *Owner `json:"owner,omitempty"`
	Content []byte `json:"content,omitempty"`
	Link    string `json:"link,omitempty"`   // what the path itself says, if it is a symbolic link
	Target  string `json:"target,omitempty"` // the file, where that is another path
}

// Owner is whom a file belongs to.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Probe is one look at one thing; Sample is what was seen. The same types serve
// the agent (from the host) and the controller (http and tcp over a new connection).
type Probe struct {
	Kind    string            `json:"kind"` // command, unit, tcp, http, file, mount, disk, subvolumes, snapshot
	Target  string            `json:"target,omitempty"`
	Args    []string          `json:"args,omitempty"`    // command
	Headers map[string]string `json:"headers,omitempty"` // http
	Status  int               `json:"status,omitempty"`  // http: wanted, 0: any below 400
	Body    string            `json:"body,omitempty"`    // http: must contain; file: must contain
	Start   bool              `json:"start,omitempty"`   // unit: start it and wait for its end first
	Paths   []string          `json:"paths,omitempty"`   // subvolumes
	Newer   time.Duration     `json:"newer,omitempty"`   // snapshot: one younger than this must exist below Target
	Timeout time.Duration     `json:"timeout"`
}

// Sample is what a probe saw. No data is never a pass.
type Sample struct {
	OK     bool               `json:"ok"`
	Detail string             `json:"detail"` // "503, want 200"
	Values map[string]float64 `json:"values,omitempty"`
	Output string             `json:"output,omitempty"` // last lines, for the failure's context
	Took   float64            `json:"took"`             // seconds
}

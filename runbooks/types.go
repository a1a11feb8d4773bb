package runbooks

import "time"

// The tags are all that the reader and schema.json know of a key; rules.go says
// what each word of `rule` means.

// Project is deployer.yaml: the hosts, and what all runbooks share.
type Project struct {
	File      string             `yaml:"-"` // path as given
	Dir       string             `yaml:"-"` // folder that relative paths start from
	Version   int                `yaml:"version" rule:"need,one=1"`
	Flake     string             `yaml:"flake" rule:"usual=."` // flake reference, store path, or a command that prints one
	Hosts     map[string]*Host   `yaml:"hosts" rule:"need,keys=name"`
	Snapshots *Snapshots         `yaml:"snapshots"`
	Backup    *BackupTo          `yaml:"backup"`
	Metrics   map[string]*Metric `yaml:"metrics" rule:"keys=name"`
	Checks    map[string]*Check  `yaml:"checks" rule:"keys=name"`
	Notify    map[string]*Notify `yaml:"notify" rule:"keys=name"`
	Plugins   map[string]*Plugin `yaml:"plugins" rule:"keys=name"`

	src *source
}

// Host is one machine.
type Host struct {
	Pos     Pos    `yaml:"-"`
	Name    string `yaml:"-"`                           // its key
	Address string `yaml:"address" rule:"need,address"` // host name, address, address:port or ssh_config alias; "local" is this machine
	User    string `yaml:"user"`                        // root-equivalent; empty: what ssh_config says
	Port    int    `yaml:"port" rule:"min=1,max=65535"`
	Key     string `yaml:"key"`                                               // path of a private key, beside the agent and ssh_config's
	System  string `yaml:"system" rule:"need"`                                // nixosConfigurations.<system>
	Zone    string `yaml:"zone" rule:"zone"`                                  // IANA; windows and times are shown in it
	Build   string `yaml:"build" rule:"one=controller|host,usual=controller"` // controller (default) or host
}

// Snapshots says what is taken read-only before every switch.
type Snapshots struct {
	Pos        Pos                   `yaml:"-"`
	Dir        string                `yaml:"dir" rule:"abs"` // default: a folder beside what it protects
	Keep       *Keep                 `yaml:"keep"`
	Subvolumes map[string]*Subvolume `yaml:"subvolumes" rule:"keys=abs"`
}

// Keep is the retention of snapshots.
type Keep struct {
	GoodRuns   int `yaml:"good_runs" rule:"min=1"`
	FailedDays int `yaml:"failed_days" rule:"min=1"`
	Most       int `yaml:"most" rule:"min=1"` // sets of a host
}

// Subvolume is one declared subvolume; `/persist: keep` is short for
// `/persist: {on_rollback: keep}`.
type Subvolume struct {
	Pos        Pos      `yaml:"-"`
	Path       string   `yaml:"-"`
	OnRollback string   `yaml:"on_rollback" rule:"short,one=keep|restore|ask,usual=keep"` // keep (default), restore, ask
	Pause      []string `yaml:"pause" rule:"unit"`                                        // units that stand still while the set is taken
	Stop       []string `yaml:"stop" rule:"unit"`                                         // units that are stopped while the set is taken
}

// BackupTo is where copies go that are not on the same disk.
type BackupTo struct {
	Pos     Pos      `yaml:"-"`
	OffHost *OffHost `yaml:"off-host"`
}

// OffHost is the backup host.
type OffHost struct {
	Pos        Pos      `yaml:"-"`
	Address    string   `yaml:"address" rule:"need,address"`
	User       string   `yaml:"user"`                  // root-equivalent; empty: what ssh_config says
	Path       string   `yaml:"path" rule:"need,abs"`  // a folder on Btrfs; copies lie in PATH/HOST/SNAPSHOT
	Subvolumes []string `yaml:"subvolumes" rule:"abs"` // default: those of `snapshots`
}

// Metric is a named number.
type Metric struct {
	Pos        Pos    `yaml:"-"`
	Scrape     string `yaml:"scrape" rule:"subject,url"`
	From       string `yaml:"from" rule:"one=host|controller"`
	Prometheus string `yaml:"prometheus" rule:"subject,url"`
	Query      string `yaml:"query" rule:"need,with=prometheus"`
}

// Notify is one receiver of notifications.
type Notify struct {
	Pos    Pos      `yaml:"-"`
	Kind   string   `yaml:"kind" rule:"need,name"` // webhook, file, or another plugin's name
	URL    *Secret  `yaml:"url"`
	Sign   *Secret  `yaml:"sign"`
	Path   string   `yaml:"path"`
	Events []string `yaml:"events" rule:"one=run|rollback|alert"` // run, rollback, alert
}

// Secret comes from the environment, a file or a command; a literal is allowed
// where the value is none (a URL without a token).
type Secret struct {
	Pos     Pos    `yaml:"-"`
	Value   string `yaml:"-"`
	Env     string `yaml:"env" rule:"subject"`
	File    string `yaml:"file" rule:"subject"`
	Command string `yaml:"command" rule:"subject"`
}

// Plugin is somebody else's plugin: only what is named here is ever started.
type Plugin struct {
	Pos    Pos    `yaml:"-"`
	Path   string `yaml:"path" rule:"need"`
	SHA256 string `yaml:"sha256" rule:"need,sha256"`
}

// Runbook is one runbook file after its variables were filled in.
type Runbook struct {
	File        string            `yaml:"-"`
	Digest      string            `yaml:"-"` // sha256 of the file and the variables' values
	Name        string            `yaml:"-"` // file name without .yaml
	Version     int               `yaml:"version" rule:"need,one=1"`
	Description string            `yaml:"description"`
	Vars        map[string]string `yaml:"vars"` // with what --var set
	Changed     map[string]string `yaml:"-"`    // variables that differ from the file's, and the file's value
	Phases      []*Phase          `yaml:"phases" rule:"need"`

	src *source
}

// Phase is one entry of phases: exactly one of the sections is set, Kind names it.
type Phase struct {
	Pos      Pos       `yaml:"-"`
	Kind     string    `yaml:"-"` // gate, backup, build, staging, window, switch, validate, monitor; edit, migrate
	Name     string    `yaml:"-"` // `gate: ready` is named ready; else the kind; made unique by a number
	Gate     *Gate     `yaml:"gate" rule:"subject"`
	Backup   *Backup   `yaml:"backup" rule:"subject"`
	Build    *Build    `yaml:"build" rule:"subject"`
	Staging  *Staging  `yaml:"staging" rule:"subject"`
	Window   *Window   `yaml:"window" rule:"subject"`
	Switch   *Switch   `yaml:"switch" rule:"subject"`
	Validate *Validate `yaml:"validate" rule:"subject"`
	Monitor  *Monitor  `yaml:"monitor" rule:"subject"`
	Edit     *Unbuilt  `yaml:"edit" rule:"subject,unbuilt"`
	Migrate  *Unbuilt  `yaml:"migrate" rule:"subject,unbuilt"`
}

// Unbuilt is a section of a kind that this version knows but has not built: it
// is kept so that a runbook lints, and refused by name when run.
type Unbuilt struct{ Pos Pos }

// Gate is a checklist: automatic items are checked, the others signed.
type Gate struct {
	Items []*Item `yaml:"items" rule:"need"`
}

// Item is one line of a gate.
type Item struct {
	Pos   Pos    `yaml:"-"`
	Check *Check `yaml:"check" rule:"subject"` // by name or inline
	Sign  string `yaml:"sign" rule:"subject"`  // who signs
	Text  string `yaml:"text" rule:"need,with=sign"`
}

// Backup declares configuration files to keep a copy of, with digests.
type Backup struct {
	Files []string            `yaml:"files" rule:"rel"`          // of the repository; `flake.lock?` may be missing
	Host  map[string][]string `yaml:"host" rule:"keys=host,abs"` // host → absolute paths there; a rollback puts them back
}

// Build evaluates and builds once per system.
type Build struct {
	Hosts []string `yaml:"hosts" rule:"host"`             // default: those that are staged or switched
	On    string   `yaml:"on" rule:"one=controller|host"` // controller (default) or host
}

// Staging is the same switch, validate and commit as production's, then its checks.
type Staging struct {
	Host     string    `yaml:"host" rule:"need,host"`
	Evidence *Evidence `yaml:"evidence"`
	Checks   []*Check  `yaml:"checks"`
}

// Evidence says how old a staging run may be, and how alike.
type Evidence struct {
	MaxAge  time.Duration `yaml:"max_age"`
	Require string        `yaml:"require" rule:"one=identical,unbuilt"`
}

// Window waits until a maintenance window is open.
type Window struct {
	Open     string          `yaml:"open" rule:"need,window"` // "always", or "sat 02:00-04:00 UTC"
	Reserve  string          `yaml:"reserve" rule:"one=rollback,unbuilt"`
	Announce []time.Duration `yaml:"announce" rule:"unbuilt"`
}

// Switch activates the new system without making it the default.
type Switch struct {
	Host          string        `yaml:"host" rule:"need,host"`
	ConfirmWithin time.Duration `yaml:"confirm_within" rule:"usual=3m"`             // default 3m
	Reboot        string        `yaml:"reboot" rule:"one=ask|auto|never,usual=ask"` // ask (default), auto, never
	AllowFailed   []string      `yaml:"allow_failed" rule:"unit"`                   // units that may fail
}

// Validate judges every lane, then ends with the commit steps.
type Validate struct {
	Checks []*Check `yaml:"checks"`
}

// Monitor watches for a while.
type Monitor struct {
	For            time.Duration `yaml:"for" rule:"need"`
	Every          time.Duration `yaml:"every" rule:"usual=1m,atmost=for"`           // default 1m
	RollbackWithin time.Duration `yaml:"rollback_within" rule:"usual=1h,atmost=for"` // default 1h, at most For
	Rules          []*Rule       `yaml:"rules"`
}

// Rule is a check that is made again and again, and what its failure does. Its
// check's condition says what is wrong ("used_percent > 90"); that of a check
// used by its name, which says what is right, becomes `not (…)`.
type Rule struct {
	Pos      Pos    `yaml:"-"`
	Check    *Check `yaml:",inline"`                                       // the check it makes; its keys stand beside do
	Do       string `yaml:"do" rule:"one=warn|alert|rollback,usual=alert"` // default alert
	Severity string `yaml:"severity" rule:"one=info|warning|critical"`
}

// Check is one question about a host. Exactly one subject is set (Kind names
// it); a scalar is the name of a check of deployer.yaml.
type Check struct {
	Pos       Pos               `yaml:"-"`
	Name      string            `yaml:"-"`                            // its key, or made from its subject
	Kind      string            `yaml:"-"`                            // command, unit, tcp, http, file, mount, disk, subvolumes, snapshot; backup, reboot, fio, metric
	Use       string            `yaml:"check" rule:"subject,short"`   // a check of deployer.yaml, by its name
	Command   []string          `yaml:"command" rule:"subject,shell"` // argv; a string is run by sh -c
	Unit      string            `yaml:"unit" rule:"subject,unit"`
	TCP       string            `yaml:"tcp" rule:"subject,hostport"` // host:port
	HTTP      string            `yaml:"http" rule:"subject,url"`     // URL
	File      string            `yaml:"file" rule:"subject,abs"`
	Mount     string            `yaml:"mount" rule:"subject,abs"`
	Disk      string            `yaml:"disk" rule:"subject,abs"`
	Subvols   []string          `yaml:"subvolumes" rule:"subject,abs"`
	Snapshot  string            `yaml:"snapshot" rule:"subject,abs"` // folder in which a new enough one must be
	Backup    string            `yaml:"backup" rule:"subject,backup"`
	Reboot    bool              `yaml:"reboot" rule:"subject,one=true"` // of staging and validate: made once, before the commit; default within 5m
	Fio       string            `yaml:"fio" rule:"subject,unbuilt"`
	Metric    string            `yaml:"metric" rule:"subject,metric,unbuilt"`
	From      string            `yaml:"from" rule:"one=host|controller,with=command|tcp|http"` // host (default) or controller; http and tcp with a host's address: controller
	Status    int               `yaml:"status" rule:"min=100,max=599,with=http"`               // http
	Headers   map[string]string `yaml:"headers" rule:"with=http"`                              // http
	Contains  string            `yaml:"contains" rule:"with=command|http|file"`
	Start     bool              `yaml:"start" rule:"with=unit"` // unit: start it, wait for its end
	NewerThan time.Duration     `yaml:"snapshot_newer_than" rule:"with=unit|snapshot"`
	MaxAge    time.Duration     `yaml:"max_age" rule:"with=backup"`
	When      string            `yaml:"when" rule:"with=command|http|disk|snapshot|backup|fio|metric"` // condition over what was measured, checked at load time
	Within    time.Duration     `yaml:"within" rule:"usual=30s"`                                       // deadline; default 30s, always finite
	Interval  time.Duration     `yaml:"interval" rule:"usual=1s,atmost=within"`
	Successes int               `yaml:"successes" rule:"min=1,usual=1"`         // needed in a row; default 1
	Timeout   time.Duration     `yaml:"timeout" rule:"usual=10s,atmost=within"` // of one try; default 10s
}

// Pos is where something stands in a file.
type Pos struct {
	File string
	Line int
	Col  int
}

package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// hostPath finds programs on NixOS first (setuid wrappers, then the system's
// own), then on others. A login's own PATH is never used.
const hostPath = "/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:" +
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// agent is one running agent: a connection's, a job's or a restore's.
type agent struct {
	Options
	fs        Snapper
	mu        sync.Mutex
	state     *store
	leased    io.Closer // makes the lock live, while this agent is
	restoring io.Closer // the lock of restores, held until the end

	direct bool // this process is a job itself: it runs programs as its children

	baseline []string // of a restore: what was failing before the run; else what is failing now
}

func newAgent(o Options) *agent {
	o.Root, o.Path, o.Unit = cmp.Or(o.Root, Dir), cmp.Or(o.Path, hostPath), cmp.Or(o.Unit, os.Getenv("DEPLOYER_UNIT"))
	if o.Units == nil {
		o.Units = systemd{o.Path}
	}
	if o.Journal == nil {
		o.Journal = systemd{o.Path}
	}
	if o.Self == nil {
		exe, _ := os.Executable()
		o.Self = []string{exe}
	}
	if o.Clock == nil {
		o.Clock = boottime{}
	}
	if o.Sync == nil {
		o.Sync = unix.Sync
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	return &agent{Options: o, fs: *cmp.Or(o.Snapper, &kernel)}
}

// store opens the agent's folder at its first use; only a write may make it.
func (a *agent) store(create bool) (_ *store, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == nil {
		a.state, err = a.openStore(a.Root, create)
	}
	return a.state, err
}

// runStore is the store for writing about a run, whose name becomes a file's.
func (a *agent) runStore(run string) (*store, error) {
	if err := checkName("run", run); err != nil {
		return nil, err
	}
	return a.store(true)
}

// at is a moment that a test can stop the process at.
func (a *agent) at(moment string) {
	if a.Moment != nil {
		a.Moment(moment)
	}
}

// host is where a path of the host is found by this process.
func (a *agent) host(path string) string {
	return a.Prefix + path
}

// resolve follows the links at the end of a path and answers where they lead,
// "" where that is nowhere.
func (a *agent) resolve(path string) string {
	for range 40 {
		target, err := os.Readlink(a.host(path))
		if err != nil {
			if _, err := os.Lstat(a.host(path)); err != nil {
				return ""
			}
			return path
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = filepath.Clean(target)
	}
	return ""
}

func (a *agent) hello(context.Context, none) (Hello, error) {
	digest := a.Digest
	if digest == "" {
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return Hello{}, fmt.Errorf("cannot read the agent itself: %w", err)
		}
		digest = sum(self)
	}
	return Hello{Digest: digest, BootID: a.bootID(), Arch: runtime.GOARCH}, nil
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func (a *agent) bootID() string { return a.line("/proc/sys/kernel/random/boot_id") }

// boottime is the kernel's CLOCK_BOOTTIME.
type boottime struct{}

func (boottime) Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every kernel since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// Run is one verb of the program in a process, or in what stands in for one: a
// context that ends with ErrStopped is one that systemd stops.
func Run(ctx context.Context, o Options, args ...string) (int, error) { return verb(ctx, o, args) }

// ErrStopped is why a job ended that was stopped.
var ErrStopped = errStopped

// line is the content of a small file without white space around it.
func (a *agent) line(path string) string {
	data, _ := os.ReadFile(a.host(path))
	return strings.TrimSpace(string(data))
}

// release gives back what the connection held.
func (a *agent) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leased != nil {
		_ = a.leased.Close()
		a.leased = nil
	}
}

// plain is what a run's or a pin's name may look like: it becomes a file name.
var plain = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$`)

func checkName(what, name string) error {
	if !plain.MatchString(name) {
		return invalid("%s %q cannot be a file name", what, name)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &Error{Code: "invalid", Message: fmt.Sprintf(format, args...)}
}

// pause waits a moment, or until ctx is over.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

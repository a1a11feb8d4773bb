package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const leaseName = "lease"

// Owner says who holds a lease.
type Owner struct {
	PID   int       `json:"pid"`
	Who   string    `json:"who"`            // user@host
	Boot  string    `json:"boot,omitempty"` // boot id of that host
	Since time.Time `json:"since"`
}

// Held is the error of a lease that somebody else has.
type Held struct {
	Run   string
	Owner Owner
}

func (h *Held) Error() string {
	if h.Owner.PID == 0 {
		return fmt.Sprintf("cannot take run %s: another process has it; watch it with: deployer status --watch %s", h.Run, h.Run)
	}
	return fmt.Sprintf("cannot take run %s: process %d of %s has it since %s; watch it with: deployer status --watch %s",
		h.Run, h.Owner.PID, h.Owner.Who, h.Owner.Since.Format(time.RFC3339), h.Run)
}

// Lease makes this process the one that works on a run. The kernel ends it
// with the process, however that dies.
type Lease struct{ f *os.File }

// Lease takes the lease of the run, or fails with *Held.
func (d *RunDir) Lease() (*Lease, error) {
	f, err := os.OpenFile(filepath.Join(d.Path, leaseName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("cannot take run %s: %w", d.ID, err)
	}
	if err := lock(f); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &Held{Run: d.ID, Owner: d.Owner()}
		}
		return nil, fmt.Errorf("cannot take run %s: %w", d.ID, err)
	}
	sign(f)
	leases.Store(f, nil)
	return &Lease{f: f}, nil
}

// leases keeps the garbage collector from closing, and so giving back, the
// file of a lease that its holder no longer looks at.
var leases sync.Map

// Release gives the lease back.
func (l *Lease) Release() error {
	leases.Delete(l.f)
	return l.f.Close()
}

// Owner returns who took the lease last; it need not hold it any more.
func (d *RunDir) Owner() Owner {
	var owner Owner
	data, _ := os.ReadFile(filepath.Join(d.Path, leaseName))
	_ = json.Unmarshal(data, &owner)
	return owner
}

// Live tells whether some process on this machine holds the lease.
func (d *RunDir) Live() bool {
	f, err := os.Open(filepath.Join(d.Path, leaseName))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, unix.LOCK_SH), unix.EWOULDBLOCK)
}

// sign names this process in the lease. That is for people: a lease holds
// without it, also on a full disk.
func sign(f *os.File) {
	data, _ := json.Marshal(self())
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(data, 0)
	}
}

func self() Owner {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return Owner{PID: os.Getpid(), Who: name + "@" + host, Boot: strings.TrimSpace(string(boot)), Since: now().UTC()}
}

// lock takes f for this process. It insists a little, since Live holds a
// shared lock for a moment.
func lock(f *os.File) error {
	for until := now().Add(200 * time.Millisecond); ; time.Sleep(5 * time.Millisecond) {
		err := flock(f, unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || now().After(until) {
			return err
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Owner says who holds a lease.
type Owner struct {
	PID   int       `json:"pid"`
	Who   string    `json:"who"` // user@host
	Since time.Time `json:"since"`
}

// Held is the error of a lease that somebody else has.
type Held struct {
	Run   string
	Owner Owner
}

func (h *Held) Error() string {
	return fmt.Sprintf("cannot take run %s: process %d of %s has it since %s; watch it with: deployer status",
		h.Run, h.Owner.PID, h.Owner.Who, h.Owner.Since.Format(time.RFC3339))
}

// Lease makes this process the one that works on a run, as long as it is
// referred to. The kernel ends it with the process, however that dies.
type Lease struct{ f *os.File }

// Lease takes the lease of the run, or fails with *Held.
func (d *RunDir) Lease() (*Lease, error) {
	f, err := os.OpenFile(d.leasePath(), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("cannot take run %s: %w", d.ID, err)
	}
	err = lock(f)
	if err == nil {
		sign(f)
		return &Lease{f: f}, nil
	}
	defer f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		held := &Held{Run: d.ID}
		_ = json.NewDecoder(f).Decode(&held.Owner)
		return nil, held
	}
	return nil, fmt.Errorf("cannot take run %s: %w", d.ID, err)
}

func (d *RunDir) leasePath() string { return filepath.Join(d.Path, "lease") }

// Release gives the lease back.
func (l *Lease) Release() error { return l.f.Close() }

// Live tells whether some process on this machine holds the lease.
func (d *RunDir) Live() bool {
	f, err := os.Open(d.leasePath())
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// sign names this process in the lease. That is for people: a lease holds
// without it, also on a full disk.
func sign(f *os.File) {
	host, _ := os.Hostname()
	data, _ := json.Marshal(Owner{PID: os.Getpid(), Who: os.Getenv("USER") + "@" + host, Since: now().UTC()})
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(data, 0)
	}
}

// lock takes f for this process. It insists a little, since Live holds a
// shared lock for a moment.
func lock(f *os.File) error {
	for until := now().Add(200 * time.Millisecond); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || now().After(until) {
			return err
		}
	}
}

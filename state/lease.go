package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LeaseExpires is how long a lease lives without a sign of its holder.
const LeaseExpires = 30 * time.Second

// beatEvery is how often a holder gives that sign.
var beatEvery = 5 * time.Second

// Owner says who holds a lease.
type Owner struct {
	Epoch  uint64    `json:"epoch"`
	PID    int       `json:"pid"`
	Who    string    `json:"who"` // user@host
	Since  time.Time `json:"since"`
	BootID string    `json:"boot_id,omitempty"`
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

// Fenced is the error of a lease that somebody took over.
type Fenced struct {
	Run   string
	Epoch uint64 // of the lease that is lost
	Owner Owner  // who took over
}

func (f *Fenced) Error() string {
	return fmt.Sprintf("cannot go on with run %s: process %d of %s took it over at %s; watch it with: deployer status",
		f.Run, f.Owner.PID, f.Owner.Who, f.Owner.Since.Format(time.RFC3339))
}

// Lease makes this process the one that works on a run, until somebody takes
// it over: each takeover begins an epoch of the run. The kernel ends a lease
// with its process, however that dies.
type Lease struct {
	dir   *RunDir
	epoch uint64
	f     *os.File
	stop  context.CancelFunc
	ended chan struct{}
}

// Lease begins the next epoch of the run. It fails with *Held while the last
// one is live, unless it is to be taken over, and where another process began
// the next one meanwhile.
func (d *RunDir) Lease(takeOver bool) (*Lease, error) {
	last, err := d.lastLease()
	if err == nil && !takeOver && last.live() {
		return nil, &Held{Run: d.ID, Owner: last.owner()}
	}
	next := numbered{last.epoch + 1, d.leasePath(last.epoch + 1)}
	var f *os.File
	if err == nil {
		f, err = publish(next.path, next.sign)
	}
	if errors.Is(err, os.ErrExist) {
		return nil, &Held{Run: d.ID, Owner: next.owner()}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take run %s: %w", d.ID, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Lease{dir: d, epoch: next.epoch, f: f, stop: stop, ended: make(chan struct{})}
	go l.beat(ctx, now, beatEvery)
	return l, nil
}

func (d *RunDir) leasePath(epoch uint64) string {
	return filepath.Join(d.Path, fmt.Sprintf("lease-%d", epoch))
}

// lastLease is that of the last epoch that left anything: a lease, or what was
// rebuilt.
func (d *RunDir) lastLease() (last numbered, err error) {
	segments, err := byEpoch(d.Path, segmentName) // first: a lease is there before its segment
	leases, lerr := byEpoch(d.Path, leaseName)
	if n := len(segments); n > 0 {
		last.epoch = segments[n-1].epoch
	}
	if n := len(leases); n > 0 && leases[n-1].epoch >= last.epoch {
		last = leases[n-1]
	}
	return last, errors.Join(err, lerr)
}

// Live tells whether some process on this machine holds the lease, and has
// given a sign lately.
func (d *RunDir) Live() bool {
	last, err := d.lastLease()
	return err == nil && last.live()
}

// Epoch is the lease's number: 1 for a run's first.
func (l *Lease) Epoch() uint64 {
	if l == nil {
		return 0
	}
	return l.epoch
}

// Lost fails with *Fenced as soon as somebody took the run over.
func (l *Lease) Lost() error {
	if l == nil {
		return nil
	}
	next := numbered{l.epoch + 1, l.dir.leasePath(l.epoch + 1)}
	switch _, err := os.Lstat(next.path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot tell who has run %s: %w", l.dir.ID, err)
	}
	return &Fenced{Run: l.dir.ID, Epoch: l.epoch, Owner: next.owner()}
}

// Release gives the lease back.
func (l *Lease) Release() error {
	l.stop()
	<-l.ended
	return l.f.Close()
}

// beat keeps the lease's time young.
func (l *Lease) beat(ctx context.Context, clock func() time.Time, every time.Duration) {
	defer close(l.ended)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = os.Chtimes(l.dir.leasePath(l.epoch), clock(), clock())
		}
	}
}

// sign locks a lease, and names this process in it. That is for people: a lease
// holds without it, also on a full disk.
func (n numbered) sign(f *os.File) error {
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	data, _ := json.Marshal(Owner{
		Epoch: n.epoch, PID: os.Getpid(), Who: os.Getenv("USER") + "@" + host, Since: now().UTC(), BootID: strings.TrimSpace(string(boot)),
	})
	_, _ = f.Write(data)
	_ = f.Sync()
	return lock(f)
}

// owner is who signed the lease, as far as can be read.
func (n numbered) owner() (o Owner) {
	data, _ := os.ReadFile(n.path)
	_ = json.Unmarshal(data, &o)
	o.Epoch = n.epoch
	return o
}

// live tells whether the process that signed is there, and not stopped. A lease
// of the time before epochs gives no sign.
func (n numbered) live() bool {
	f, err := os.Open(n.path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	silent := err != nil || now().Sub(info.ModTime()) >= LeaseExpires
	if silent && filepath.Base(n.path) != "lease" {
		return false
	}
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// lock takes f for this process.
func lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

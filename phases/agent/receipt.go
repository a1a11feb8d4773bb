package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// receipt reads what the host recorded. A job that neither ended nor runs is lost.
func (a *agent) receipt(ctx context.Context, s *store, unit string) (Receipt, error) {
	var r Receipt
	if err := s.readJSON(jobFile(unit, "receipt.json"), &r); err != nil {
		return r, err
	}
	if r.State != stateBegun || r.BootID == a.bootID() && a.alive(ctx, s, unit) {
		return r, nil
	}
	// It may have ended between the two looks.
	if err := s.readJSON(jobFile(unit, "receipt.json"), &r); err != nil {
		return r, err
	}
	if r.State == stateBegun {
		r.State = stateLost
	}
	return r, nil
}

// alive tests the lock that the wrapper holds for its whole life: the kernel
// drops it, however the wrapper ends. Only then systemd is asked, for what the
// wrapper may have left.
func (a *agent) alive(ctx context.Context, s *store, unit string) bool {
	f, err := s.open(jobFile(unit, "alive"), unix.O_RDWR, 0)
	if err == nil {
		defer f.Close()
		if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
			return true
		}
	}
	on, err := running(ctx, a.Units, unit)
	return err != nil || on // unknown is not lost
}

func (a *agent) jobWait(ctx context.Context, ref JobRef) (Receipt, error) {
	s, job, err := a.ticket(ref.Unit)
	if err != nil {
		return Receipt{}, err
	}
	for deadline := time.Now().Add(ref.Wait); ; {
		r, err := a.receipt(ctx, s, ref.Unit)
		if errors.Is(err, fs.ErrNotExist) {
			return r, &Error{Code: "not-found", Message: ref.Unit + " was asked for but did not start"}
		}
		if err != nil || r.State != stateBegun || !time.Now().Before(deadline) {
			return r, err
		}
		if job.Finish && job.Timeout > 0 && time.Since(r.Started) > job.Timeout {
			r.Timeout = true
			return r, nil
		}
		if err := a.changed(ctx, s, ref.Unit, deadline); err != nil {
			return r, err
		}
	}
}

// changed returns soon after the receipt is another file, or after a second.
func (a *agent) changed(ctx context.Context, s *store, unit string, deadline time.Time) error {
	before := s.inode(jobFile(unit, "receipt.json"))
	for end := time.Now().Add(time.Second); time.Now().Before(end) && time.Now().Before(deadline); {
		if err := pause(ctx, jobPoll/2); err != nil {
			return err
		}
		if s.inode(jobFile(unit, "receipt.json")) != before {
			return nil
		}
	}
	return nil
}

func (a *agent) jobOutput(ctx context.Context, args OutputArgs) (Output, error) {
	if _, _, err := a.ticket(args.Unit); err != nil {
		return Output{}, err
	}
	if args.Max <= 0 {
		args.Max = outputLines
	}
	return a.Journal.Read(ctx, args)
}

// jobStop ends a job and answers when nothing of it is left.
func (a *agent) jobStop(ctx context.Context, ref JobRef) (Receipt, error) {
	s, _, err := a.ticket(ref.Unit)
	if err != nil {
		return Receipt{}, err
	}
	if on, err := running(ctx, a.Units, ref.Unit); err != nil || on {
		ctx, cancel := context.WithTimeout(ctx, 2*stopLimit)
		defer cancel()
		if err := a.Units.Do(ctx, "stop", ref.Unit); err != nil {
			if on, _ := running(ctx, a.Units, ref.Unit); on {
				return Receipt{}, fmt.Errorf("cannot stop %s: %w", ref.Unit, err)
			}
		}
	}
	return a.receipt(ctx, s, ref.Unit)
}

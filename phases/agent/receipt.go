package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"time"
)

// receipt reads what the host recorded. A job that neither ended nor runs is lost.
func (a *agent) receipt(ctx context.Context, s *store, unit string) (r Receipt, err error) {
	file := jobFile(unit, "receipt.json")
	if err := s.readJSON(file, &r); err != nil || r.State != stateBegun || r.BootID == a.bootID() && a.alive(ctx, s, unit) {
		return r, err
	}
	// It may have ended between the two looks.
	if err = s.readJSON(file, &r); r.State == stateBegun {
		r.State = stateLost
	}
	return r, err
}

// alive tests the lock that the wrapper holds for its whole life: the kernel
// drops it, however the wrapper ends. Only then systemd is asked, for what the
// wrapper may have left.
func (a *agent) alive(ctx context.Context, s *store, unit string) bool {
	if s.held(jobFile(unit, "alive")) {
		return true
	}
	on, err := running(ctx, a.Units, unit)
	return err != nil || on // unknown is not lost
}

func (a *agent) jobWait(ctx context.Context, ref JobRef) (Receipt, error) {
	s, _, err := a.ticket(ref.Unit)
	if err != nil {
		return Receipt{}, err
	}
	for deadline := time.Now().Add(ref.Wait); ; {
		r, err := a.receipt(ctx, s, ref.Unit)
		if errors.Is(err, fs.ErrNotExist) {
			err = &Error{Code: "not-found", Message: ref.Unit + " was asked for but did not start"}
		}
		if err != nil || r.State != stateBegun || !time.Now().Before(deadline) {
			return r, err
		}
		if err := pause(ctx, jobPoll); err != nil {
			return r, err
		}
	}
}

func (a *agent) jobOutput(ctx context.Context, args OutputArgs) (Output, error) {
	if _, _, err := a.ticket(args.Unit); err != nil {
		return Output{}, err
	}
	args.Max = cmp.Or(args.Max, outputLines)
	return a.Journal.Read(ctx, args)
}

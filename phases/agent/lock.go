package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockFile   = "lock"
	holderFile = "holder.json"
)

// lock takes the host's lock for as long as this agent lives: the kernel gives
// it back, whatever ends the process.
func (a *agent) lock(_ context.Context, h Holder) (Holder, error) {
	if err := checkName("run", h.Run); err != nil {
		return h, err
	}
	s, err := a.store(true)
	if err != nil {
		return h, err
	}
	h.BootID, h.Since = a.bootID(), time.Now().UTC()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.locked != nil && a.holder.Run != h.Run {
		return a.holder, &Error{Code: "locked", Message: "this connection holds the lock for run " + a.holder.Run}
	}
	if a.locked == nil {
		if a.locked, err = a.take(s); err != nil {
			return a.heldBy(s), err
		}
	}
	if err := a.admit(s, h); err != nil {
		a.locked.Close()
		a.locked = nil
		return h, err
	}
	a.holder = h
	return h, s.writeJSON(holderFile, h)
}

func (a *agent) take(s *store) (*os.File, error) {
	f, err := s.open(lockFile, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("cannot lock the host: %w", err)
	}
	h := a.heldBy(s)
	return nil, &Error{Code: "locked", Message: "this host is locked by " + describe(h, a.bootID()),
		Hint: []string{"deployer status"}}
}

// admit refuses while another run's lane is open: its recipe is still the way back.
func (a *agent) admit(s *store, h Holder) error {
	open := openRun(s, h.Run)
	if open == "" || h.Force {
		return nil
	}
	return &Error{Code: "open-run", Message: "run " + open + " changed this host and was never closed",
		Hint: []string{"deployer rollback " + open}}
}

// heldBy is who holds the lock now, as far as the file beside it tells.
func (a *agent) heldBy(s *store) Holder {
	var h Holder
	_ = s.readJSON(holderFile, &h)
	return h
}

// holderNow is the holder if the lock is held at this moment.
func (a *agent) holderNow(s *store) *Holder {
	f, err := s.open(lockFile, unix.O_RDWR, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if !errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return nil
	}
	h := a.heldBy(s)
	return &h
}

func describe(h Holder, boot string) string {
	if h.Run == "" || h.BootID != boot { // left over from before a reboot: the new holder has not written yet
		return "another run, which has not said its name yet"
	}
	text := fmt.Sprintf("%s for run %s, since %s", h.Owner, h.Run, time.Since(h.Since).Round(time.Second))
	if h.Reason != "" {
		text += " (" + h.Reason + ")"
	}
	return text
}

func (a *agent) unlock(context.Context, none) (none, error) {
	a.release()
	return none{}, nil
}

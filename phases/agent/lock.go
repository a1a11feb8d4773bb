package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	s, err := a.runStore(h.Run)
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
		if a.locked, err = s.lock(lockFile, false); err != nil {
			return h, a.refusal(s, err)
		}
	}
	// Another run's recipe is still the way back: it has to be closed first.
	if open := openRun(s, h.Run); open != "" && !h.Force {
		a.locked.Close()
		a.locked = nil
		return h, &Error{Code: "open-run", Message: "run " + open + " changed this host and was never closed",
			Hint: []string{"deployer rollback " + open}}
	}
	a.holder = h
	return h, s.writeJSON(holderFile, h)
}

func (a *agent) refusal(s *store, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("cannot lock the host: %w", err)
	}
	h := heldBy(s)
	return &Error{Code: "locked", Message: "this host is locked by " + describe(h, a.bootID()),
		Hint: []string{"deployer status"}}
}

// heldBy is who holds the lock now, as far as the file beside it tells.
func heldBy(s *store) (h Holder) {
	_ = s.readJSON(holderFile, &h)
	return h
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

// openRun is the newest run but one that has a recipe and no closing.
func openRun(s *store, but string) string {
	runs, _ := s.names("runs")
	for _, run := range slices.Backward(runs) {
		if run != but && s.exists(runFile(run, "recipe.json")) && !s.exists(runFile(run, "closing.json")) {
			return run
		}
	}
	return ""
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gateFile   = "gate"
	holderFile = "holder.json"
	planFile   = "plan.json"
)

func leaseFile(epoch uint64) string { return "lease/" + strconv.FormatUint(epoch, 10) }

// pass runs an operation behind the gate. Whoever registers an epoch or decides
// has the gate to itself; so nothing that was let in before is still under way
// then, and what comes later is measured by the new epoch and the decision.
func (a *agent) pass(ctx context.Context, op operation, req Request) (any, error) {
	switch op.kind {
	case reads, locks:
		return op.run(ctx, a, req.Args)
	case child:
		if s, err := a.store(false); err == nil && req.Epoch != 0 && req.Epoch != heldBy(s).Epoch && !a.Unfenced {
			return nil, fenced(heldBy(s))
		}
		return op.run(ctx, a, req.Args)
	}
	s, err := a.store(true)
	if err != nil {
		return nil, err
	}
	gate, err := s.gate(op.kind == decides)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	if err := a.admit(s, op, req); err != nil {
		return nil, err
	}
	return op.run(ctx, a, req.Args)
}

func (s *store) gate(exclusive bool) (io.Closer, error) {
	if exclusive {
		return s.lock(gateFile, true)
	}
	return s.lockShared(gateFile, true)
}

// admit checks a write against the epoch and the decision, and makes the lane's
// records durable before it.
func (a *agent) admit(s *store, op operation, req Request) error {
	h := heldBy(s)
	if req.Epoch != h.Epoch && !a.Unfenced {
		return fenced(h)
	}
	if op.kind == writes && !a.Undecided {
		if h.Run == "" && h.Epoch != 0 {
			return &Error{Code: Restoring, Message: "the lane was closed on this host: its guard went back"}
		}
		c := closingOf(s, h.Run)
		anew := req.Op == OpRecipePut && c != nil && c.Outcome == "stuck" // a person chooses another way back: nobody is on one
		if d := decisionOf(s, h.Run, roundOf(s, h.Run)); h.Run != "" && d != nil && d.Decision == Restoring && !anew {
			return &Error{Code: Restoring, Message: fmt.Sprintf("run %s is being undone on this host: decided by the %s", h.Run, d.By)}
		}
	}
	if req.Records == nil {
		return nil
	}
	return a.keepRecords(s, *req.Records)
}

func fenced(h Holder) error {
	e := &Error{Code: "fenced", Message: "another controller has taken over this host", Hint: []string{"deployer status"}}
	switch {
	case h.Run != "":
		e.Message += fmt.Sprintf(": run %s, by %s", h.Run, h.Owner)
	case h.Reason != "":
		e.Message = "this controller has no lock here any more: " + h.Reason
	}
	return e
}

// lock makes its caller the one writer of this host. From its return on nothing
// that was asked for under a lower epoch takes effect any more.
func (a *agent) lock(_ context.Context, args LockArgs) (Holder, error) {
	s, gate, err := a.alone(args.Run)
	if err != nil {
		return Holder{}, err
	}
	defer gate.Close()
	was := heldBy(s)
	if err := a.lockable(s, was, args); err != nil {
		return was, err
	}
	h := was
	if args.Epoch == 0 {
		h = Holder{Run: args.Run, Owner: args.Owner, Reason: args.Reason, Since: time.Now().UTC(), BootID: a.bootID(), Epoch: max(was.Epoch+1, args.AtLeast)}
		if args.Plan != nil {
			if err := s.write(runFile(args.Run, planFile), args.Plan); err != nil {
				return was, err
			}
		} else if err := s.mkdir("runs/" + args.Run); err != nil {
			return was, err
		}
		if err := s.writeJSON(holderFile, h); err != nil {
			return was, err
		}
		_ = s.remove(leaseFile(was.Epoch))
	} else if h.BootID != a.bootID() && h.Run != "" { // the host was rebooted under its holder
		h.BootID = a.bootID()
		if err := s.writeJSON(holderFile, h); err != nil {
			return was, err
		}
	}
	return h, a.lease(s, h)
}

// alone is the store, with the gate to itself.
func (a *agent) alone(run string) (*store, io.Closer, error) {
	s, err := a.runStore(run)
	if err != nil {
		return nil, nil, err
	}
	gate, err := s.gate(true)
	return s, gate, err
}

// lockable tells why a lock cannot be had.
func (a *agent) lockable(s *store, was Holder, args LockArgs) error {
	other := was.Run != "" && was.Run != args.Run
	switch open := openRun(s, args.Run); {
	case args.Epoch != 0 && (args.Epoch != was.Epoch || other):
		return fenced(was)
	case args.Epoch != 0:
		return nil
	case other && a.live(s, was):
		return &Error{Code: "locked", Message: "this host is locked by " + describe(was), Hint: []string{"deployer status"}}
	case !other && !args.Take && s.exists("runs/"+args.Run): // the same run, and not by the one who asks
		return fenced(was)
	case open != "" && !args.Force: // its recipe is still the way back: it has to be closed first
		return &Error{Code: "open-run", Message: "run " + open + " changed this host and was never finished",
			Hint: WaysOut(open)}
	}
	return nil
}

// WaysOut is what a person types about a run that was left open on a host. Of a
// rollback that was, the host only knows the run that it was to undo.
func WaysOut(run string) []string {
	return []string{"deployer resume " + run, "deployer abort " + run, "deployer rollback " + run + "   # if that is over, and was being undone"}
}

// lease makes the lock live, as long as this agent is. Agents of one controller
// share it.
func (a *agent) lease(s *store, h Holder) error {
	l, err := s.lockShared(leaseFile(h.Epoch), true)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leased != nil {
		_ = a.leased.Close()
	}
	a.leased = l
	return nil
}

// live tells whether an agent of the holder's controller is connected. A lock
// from before a boot is nobody's.
func (a *agent) live(s *store, h Holder) bool {
	if h.Run == "" || h.BootID != a.bootID() || !s.exists(leaseFile(h.Epoch)) {
		return false
	}
	l, err := s.lock(leaseFile(h.Epoch), false)
	if err == nil {
		_ = l.Close()
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

// unlock takes a run's lock away: its controller can do nothing more here. The
// lane stays open, and so does the way back.
func (a *agent) unlock(_ context.Context, args Unlocking) (Holder, error) {
	s, gate, err := a.alone(args.Run)
	if err != nil {
		return Holder{}, err
	}
	defer gate.Close()
	h := heldBy(s)
	if h.Run != args.Run {
		return h, &Error{Code: "not-found", Message: "run " + args.Run + " does not hold this host's lock: " + describe(h)}
	}
	h = Holder{Epoch: h.Epoch + 1, Reason: fmt.Sprintf("unlocked by %s: %s", args.By, args.Reason), Since: time.Now().UTC()}
	return h, s.writeJSON(holderFile, h)
}

// free gives the lock back at the end of a lane, and no epoch of anybody who
// takes it at that moment.
func free(s *store, run string) error {
	gate, err := s.gate(false)
	if err != nil {
		return err
	}
	defer gate.Close()
	h := heldBy(s)
	if h.Run != run {
		return nil
	}
	return s.writeJSON(holderFile, Holder{Epoch: h.Epoch})
}

// heldBy is who holds the lock, and the highest epoch.
func heldBy(s *store) (h Holder) {
	_ = s.readJSON(holderFile, &h)
	return h
}

func describe(h Holder) string {
	if h.Run == "" {
		return "nobody has it"
	}
	text := fmt.Sprintf("%s for run %s, since %s", h.Owner, h.Run, time.Since(h.Since).Round(time.Second))
	if h.Reason != "" {
		text += " (" + h.Reason + ")"
	}
	return text
}

// openRun is the newest run but one that has a recipe and no good closing: one
// that is stuck has still to be undone.
func openRun(s *store, but string) string {
	runs, _ := s.names("runs")
	for _, run := range slices.Backward(runs) {
		c := closingOf(s, run)
		if run != but && s.exists(runFile(run, "recipe.json")) && (c == nil || c.Outcome == "stuck") {
			return run
		}
	}
	return ""
}

// keepRecords appends to the lane's journal.
func (a *agent) keepRecords(s *store, r Records) error {
	if err := checkName("run", r.Run); err != nil {
		return err
	}
	var lines []byte
	for _, l := range r.Lines {
		lines = append(append(lines, l...), '\n')
	}
	return s.append(runFile(r.Run, "journal.jsonl"), lines)
}

// journal is the operation that only carries records: see admit.
func (*agent) journal(context.Context, none) (none, error) { return none{}, nil }

const recordsPart = 4 << 20 // bytes in one answer

func (a *agent) records(_ context.Context, args RecordsArgs) (p RecordsPart, err error) {
	if err := checkName("run", args.Run); err != nil {
		return p, err
	}
	s, err := a.store(false)
	if err != nil {
		return p, err
	}
	data, err := s.read(runFile(args.Run, "journal.jsonl"))
	if err != nil {
		return p, err
	}
	all := lines(string(data))
	for i, size := min(args.From, len(all)), 0; i < len(all); i++ {
		if size += len(all[i]); size > recordsPart {
			p.Next = i
			break
		}
		if json.Valid([]byte(all[i])) { // else torn by a power cut
			p.Lines = append(p.Lines, json.RawMessage(all[i]))
		}
	}
	return p, nil
}

package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// patience is how long a host that is being restored may be out of reach.
const patience = 30 * time.Second

// backward restores every lane that was changed, the last one first. A restore
// is never gated: not by windows, approvals, or a journal that cannot be written.
func (r *Runner) backward(ctx context.Context, o *Outcome) {
	var changed []*Lane
	for _, l := range slices.Backward(r.Run.Lanes) {
		if l.Changed() {
			changed = append(changed, l)
		} else {
			r.close(ctx, l, state.Untouched)
		}
	}
	if len(changed) == 0 {
		o.Status, o.Exit = state.Failed, o.Failure.Exit
		o.Failure.Safe = "nothing was changed on any host"
		return
	}
	r.state(state.Restoring)
	for _, l := range changed {
		if l.Status != state.Restored { // by an earlier process
			o.Remains = append(o.Remains, r.restore(ctx, l)...)
		}
		if r.fenced != nil {
			o.Exit, o.Failure = ExitFenced, r.fenced
			return
		}
	}
	o.Status, o.Exit = judge(changed, o.Failure.Exit == ExitAborted)
}

// judge is the table from how the lanes ended to how the run did.
func judge(lanes []*Lane, aborted bool) (state.Status, int) {
	has := func(s state.Status) bool {
		return slices.ContainsFunc(lanes, func(l *Lane) bool { return l.Status == s })
	}
	switch {
	case has(state.Stuck):
		return state.Stuck, ExitStuck
	case has(state.OutOfReach):
		return state.OutOfReach, ExitUnknown
	case aborted:
		return state.RolledBack, ExitAborted
	case slices.ContainsFunc(lanes, func(l *Lane) bool { return l.byHost }):
		return state.ByHost, ExitByHost
	}
	return state.RolledBack, ExitRolledBack
}

// patient is how long a host may be out of reach: until its guard has gone back,
// where that is armed.
func (l *Lane) patient() time.Duration {
	base := patience
	if l.Reboots() {
		base = BootLimit
	}
	if l.guarded.IsZero() {
		return base
	}
	return max(base, time.Until(l.guarded)+base+patience)
}

// restore runs the lane's recipe on its host, by the host's own agent, and
// verifies the result over a new connection. It returns what a person has to
// type where it could not.
func (r *Runner) restore(ctx context.Context, l *Lane) (remains []string) {
	r.move(l, state.Restoring)
	start := time.Now()
	r.undo(l, state.UndoIntent, fmt.Sprintf("%d operations", len(l.Recipe.Operations)), nil, 0)
	if err := l.Reattach(ctx, l.patient()); r.takenOver(l, err) {
		return nil
	} else if err != nil {
		return r.unreachable(l, err)
	}
	r.keepLogs(ctx, l)
	receipt, err := l.runRecipe(ctx, r.Run.subject())
	if r.takenOver(l, err) {
		return nil
	}
	if Passing(err) || errors.Is(err, context.DeadlineExceeded) {
		return r.unreachable(l, err)
	}
	r.decided(ctx, l)
	for i, out := range receipt.Result {
		r.undone(l, i, out)
	}
	r.ofData(l, receipt.Result)
	switch {
	case err != nil:
	case receipt.State != "ended":
		err = fmt.Errorf("the restore did not end: %s", receipt.State)
	case receipt.Code != 0: // what was left half done may look as it was
		err = errors.New("an operation of the recipe failed")
	default:
		if err = l.verify(ctx); Passing(err) {
			return r.unreachable(l, err)
		}
	}
	if why := intact(receipt); why != nil && r.Run.DataOnly() && l.verify(ctx) == nil {
		r.undo(l, state.UndoFailed, "", why, time.Since(start))
		r.close(ctx, l, state.Untouched)
		l.refused = why
		return nil
	}
	if err != nil {
		r.undo(l, state.UndoFailed, "", err, time.Since(start))
		r.close(ctx, l, state.Stuck)
		return hints(l.Name, r.Run.subject(), receipt.Result)
	}
	r.undo(l, state.UndoDone, "verified: "+describe(l.Before), nil, time.Since(start))
	r.close(ctx, l, state.Restored)
	return nil
}

// intact is why a restore of data could not be, where it has changed nothing.
func intact(r agent.Receipt) (why error) {
	for _, out := range r.Result {
		switch {
		case out.Intact:
			why = errors.New(out.Message)
		case out.State != "already":
			return nil
		}
	}
	return why
}

// decided records who decided on the host to go back: by now somebody has.
func (r *Runner) decided(ctx context.Context, l *Lane) {
	seen, err := l.known(ctx, r.Run.subject())
	if d := seen.Decision; err == nil && d != nil {
		l.byHost = d.Decision == agent.Restoring && d.By == agent.ByGuard
		_ = r.Log.Record(state.Record{Kind: state.GuardDecided, Host: l.Name}, state.Decided{Decision: d.Decision, By: d.By, Round: d.Round})
	}
}

// reject makes the host remember a system that was tried there and failed.
// Neither the operator's wish nor a link that went away is its fault.
func (r *Runner) reject(f *Failure) {
	l := r.Run.LaneOf(f.Host)
	if l == nil || f.Exit != ExitFailed || IsLost(f.Err) {
		return
	}
	tried := slices.ContainsFunc(l.Recipe.Operations, func(op agent.Operation) bool { return op.Op == agent.DoStopJob })
	if tried {
		l.rejected, l.why = l.To.Out, f.Error()
	}
}

// takenOver tells whether another controller has the host now: it restores what
// there is to restore.
func (r *Runner) takenOver(l *Lane, err error) bool {
	if !fenced(err) {
		return false
	}
	r.fenced = &Failure{Exit: ExitFenced, Host: l.Name, Err: err, Hint: []string{"deployer status"}}
	return true
}

// Restore is restore for a run that undoes an earlier one, or is nothing but a
// restore of data.
func (r *Runner) Restore(ctx context.Context) *Outcome {
	o := newOutcome()
	r.tell(ctx)
	r.state(state.Restoring)
	for _, l := range slices.Backward(r.Run.Lanes) {
		if err := l.takeAsSeen(ctx, r.Run); err != nil {
			return r.refused(ctx, o, l, err)
		}
	}
	return r.restoreAll(context.WithoutCancel(ctx), o)
}

// RestoreAgain goes on with a restore of data that another process left. Its
// lane must be seized before.
func (r *Runner) RestoreAgain(ctx context.Context) *Outcome {
	r.join(ctx)
	if !r.Run.Lanes[0].Changed() {
		return r.back(ctx, &Failure{Exit: ExitFailed, Err: errors.New("it was cut off before it began: what it was to restore is not known")})
	}
	r.state(state.Restoring)
	return r.restoreAll(ctx, newOutcome())
}

func (r *Runner) restoreAll(ctx context.Context, o *Outcome) *Outcome {
	for _, l := range slices.Backward(r.Run.Lanes) {
		o.Remains = append(o.Remains, r.restore(ctx, l)...)
		if r.fenced != nil {
			o.Exit, o.Failure = ExitFenced, r.fenced
			return r.save(ctx, o)
		}
	}
	o.Status, o.Exit = judge(r.Run.Lanes, false)
	switch l := r.Run.Lanes[0]; { // a restore of data has no other
	case l.refused != nil:
		o.Status, o.Exit = state.Failed, ExitFailed
		o.Failure = &Failure{Exit: o.Exit, Host: l.Name, Err: l.refused, Safe: "nothing was changed on any host",
			Hint: []string{RestoreCommand(l.Name, uuids(l.Recipe.Snapshots)) + "   # once that is mended"}}
	case o.Status == state.RolledBack || o.Status == state.ByHost:
		o.Exit = ExitOK
	default:
		o.Failure = &Failure{Exit: o.Exit, Err: fmt.Errorf("not every host could be restored: %s", strings.Join(notRestored(r.Run.Lanes), ", "))}
	}
	return r.finish(ctx, o)
}

func uuids(list []agent.Snapshot) (all []string) {
	for _, s := range list {
		all = append(all, s.UUID)
	}
	return all
}

// notRestored names the lanes that a rollback did not bring back.
func notRestored(lanes []*Lane) []string {
	var names []string
	for _, l := range lanes {
		if l.Status != state.Restored {
			names = append(names, l.Name+" is "+string(l.Status))
		}
	}
	return names
}

// subject is the run whose recipe is restored: this one, or the one it undoes.
func (r *Run) subject() string {
	if r.Undoes != "" {
		return r.Undoes
	}
	return r.ID
}

// refused ends a rollback that could not take every host's lock: it has changed
// nothing. One that is under way on a host already may have.
func (r *Runner) refused(ctx context.Context, o *Outcome, l *Lane, err error) *Outcome {
	f := *AsFailure(err)
	f.Host, f.Step, f.Safe = l.Name, "lock", "nothing was changed on any host"
	var ae *agent.Error
	if errors.As(err, &ae) && ae.Code == agent.Restoring {
		f.Exit, f.Safe = ExitRefused, ""
		f.Hint = []string{"deployer rollback " + r.Run.subject() + "   # without --data it goes on as it was begun"}
	}
	for _, taken := range r.Run.Lanes {
		if taken.Locked {
			_ = taken.unlock(ctx, r.Run.subject(), r.Run.Owner, "the rollback was refused")
			taken.Locked = false
		}
	}
	o.Status, o.Exit, o.Failure = state.Failed, f.Exit, &f
	return r.finish(ctx, o)
}

func (r *Runner) unreachable(l *Lane, err error) []string {
	r.undo(l, state.UndoFailed, "", err, 0)
	r.move(l, state.OutOfReach)
	if l.Reboots() && !commits(l.Recipe) { // it may hang
		return []string{"# " + l.Name + " goes back by itself, or with its next boot: its boot default was not touched (" + l.Before.Boot.System + ")"}
	}
	if !l.guarded.IsZero() {
		return []string{"# " + l.Name + " goes back by itself: its guard has had no confirmation"}
	}
	if commits(l.Recipe) {
		return []string{"# " + l.Name + " may boot the new system: at its console, follow " + agent.Dir + "/runs/" + r.Run.subject() + "/RESTORE.txt"}
	}
	return []string{"# " + l.Name + " is old after a reboot: its boot default was not touched (" + l.Before.Boot.System + ")"}
}

// undo records what becomes of a lane's restore as a whole.
func (r *Runner) undo(l *Lane, kind state.Kind, text string, err error, took time.Duration) {
	rec := state.Record{Kind: kind, Host: l.Name, Phase: "undo", Step: "undo/restore@" + l.Name, Text: text, Elapsed: took.Seconds()}
	if err != nil {
		rec.Reason = err.Error()
	}
	_ = r.Log.Record(rec, nil)
}

// undone records one operation of the recipe.
func (r *Runner) undone(l *Lane, i int, out agent.Outcome) {
	rec := state.Record{Kind: state.UndoDone, Host: l.Name, Phase: "undo", Step: fmt.Sprintf("undo/%d-%s@%s", i+1, out.Op.Op, l.Name), Text: Words(out.Op), Elapsed: out.Took}
	if out.State == "failed" {
		rec.Kind, rec.Reason, rec.Hint = state.UndoFailed, out.Message, out.Hint
	}
	out.Op.Content = nil
	_ = r.Log.Record(rec, out)
}

// restores is how often a restore is begun that is cut off in the middle: as
// often as the guard tries.
const restores = 3

// runRecipe starts the restore on the host and follows it to its end. What a
// restore that was killed has done, the next one finds done; one that reboots
// the host goes on after the boot.
func (l *Lane) runRecipe(ctx context.Context, run string) (rec agent.Receipt, err error) {
	for range restores {
		rec, err = l.tryRecipe(ctx, run)
		if err == nil && (rebooting(rec) || rec.State != "ended" && l.Reboots()) {
			// A restore that was killed by something else is begun again where it was.
			if _, err = l.Rebooted(ctx, rec.BootID, BootLimit); errors.Is(err, errSameBoot) {
				err = nil
			}
			if err == nil {
				continue
			}
		}
		if err == nil && rec.State == "ended" || Passing(err) || fenced(err) || ctx.Err() != nil {
			break
		}
	}
	return rec, err
}

// rebooting tells whether a restore was ended by the reboot that is a part of it.
func rebooting(r agent.Receipt) bool {
	return slices.ContainsFunc(r.Result, func(o agent.Outcome) bool {
		return o.Op.Op == agent.DoReboot && o.State == "failed" && o.Code > 128
	})
}

// tryRecipe is one restore, over as many connections as that takes: it runs in
// a unit of its own.
func (l *Lane) tryRecipe(ctx context.Context, run string) (agent.Receipt, error) {
	var rec agent.Receipt
	err := l.Call(ctx, agent.OpRestore, agent.RunRef{Run: run}, &rec)
	for err == nil && rec.State == "started" {
		wait := agent.JobRef{Unit: rec.Unit, Wait: time.Minute}
		rec = agent.Receipt{}
		err = l.Call(ctx, agent.OpJobWait, wait, &rec)
	}
	return rec, err
}

// verify compares the host with what it was, over a new connection. Units may
// take a moment to be up again.
func (l *Lane) verify(ctx context.Context) error {
	l.Forget()
	deadline := time.Now().Add(patience)
	for {
		err := l.same(ctx)
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (l *Lane) same(ctx context.Context) error {
	j, err := l.Judge(ctx)
	if err != nil {
		return fmt.Errorf("restored, but it cannot be verified over a new connection: %w", err)
	}
	var now agent.Facts
	files := make([]string, 0, len(l.Before.Files))
	for p := range l.Before.Files {
		files = append(files, p)
	}
	if err := j.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true, Files: files}, &now); err != nil {
		return err
	}
	if !l.Reboots() { // what a power cut booted meanwhile was put back live
		now.Booted = l.Before.Booted
	}
	if d := Differences(l.Before, now); len(d) > 0 {
		return fmt.Errorf("the host is not as it was before: %s", strings.Join(d, "; "))
	}
	return nil
}

// Differences lists in what way a host is not what it was. What changes by
// itself does not count; neither does a unit that failed before.
func Differences(before, now agent.Facts) []string {
	var d []string
	add := func(what, was, is string) {
		if was != is {
			d = append(d, fmt.Sprintf("%s is %s, was %s", what, is, was))
		}
	}
	add("the running system", before.System, now.System)
	add("the profile's system", before.Profile.System, now.Profile.System)
	add("the profile's generation", fmt.Sprint(before.Profile.Generation), fmt.Sprint(now.Profile.Generation))
	if now.BootID != before.BootID && now.Booted != before.Booted {
		add("what was booted", before.Boot.System, now.Booted)
	}
	add("the boot default", before.Boot.Default, now.Boot.Default)
	add("the boot default's system", before.Boot.System, now.Boot.System)
	for path, was := range before.Files {
		add(path, was, now.Files[path])
	}
	for _, u := range before.Active {
		if Lasting(u) && !slices.Contains(now.Active, u) {
			d = append(d, u+" is not active")
		}
	}
	for _, u := range now.Failed {
		if !slices.Contains(before.Failed, u) && !strings.HasPrefix(u, "deployer-") {
			d = append(d, u+" has failed")
		}
	}
	return d
}

// Lasting tells whether a unit that was active is expected to stay so: sessions,
// scopes, devices and mounts of them, and deployer's own jobs come and go.
func Lasting(unit string) bool {
	switch {
	case strings.HasSuffix(unit, ".scope"), strings.HasSuffix(unit, ".device"), strings.HasPrefix(unit, "deployer-"),
		strings.HasPrefix(unit, "user@"), strings.HasPrefix(unit, "user-runtime-dir@"), strings.HasPrefix(unit, "user-"), strings.HasPrefix(unit, "run-"),
		strings.HasPrefix(unit, "dev-") && strings.HasSuffix(unit, ".mount"),
		strings.HasPrefix(unit, "sshd@"):
		return false
	}
	return true
}

// close says on the host how the lane ended. A lane that nothing was done to
// may have nothing to close.
func (r *Runner) close(ctx context.Context, l *Lane, to state.Status) {
	defer r.move(l, to)
	if l.started() == nil || (!l.Locked && to == state.Untouched) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	closing := agent.Closing{Run: r.Run.subject(), Outcome: string(to)}
	if to == state.Restored {
		closing.Rejected, closing.Reason = l.rejected, l.why
	}
	err := l.Call(ctx, agent.OpClose, closing, nil)
	if err != nil && l.Reattach(ctx, 15*time.Second) == nil {
		err = l.Call(ctx, agent.OpClose, closing, nil)
	}
	if err != nil {
		_ = r.Log.Record(state.Record{Kind: state.Note, Host: l.Name, Text: "the lane could not be closed on the host: " + err.Error()}, nil)
	}
}

func describe(f agent.Facts) string {
	return fmt.Sprintf("generation %d, %s", f.Profile.Generation, ShortPath(f.System))
}

func hints(name, run string, results []agent.Outcome) []string {
	var out []string
	for _, res := range results {
		if res.State == "failed" {
			out = append(out, res.Hint...)
		}
	}
	if len(out) == 0 {
		out = []string{"less " + agent.Dir + "/runs/" + run + "/RESTORE.txt"}
	}
	return append([]string{"# on " + name + ", as root:"}, out...)
}

// ShortPath shows a store path as its hash's start and its name.
func ShortPath(p string) string {
	base := strings.TrimPrefix(p, "/nix/store/")
	if len(base) > 33 && base[32] == '-' {
		return base[:7] + "…" + base[32:]
	}
	return base
}

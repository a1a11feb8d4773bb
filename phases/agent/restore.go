package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	restoreLock  = "restore.lock"
	restoreWaits = 10 * time.Minute
)

// restoreStart claims the restore, starts a watcher that goes on with it should
// its controller not, and runs the stored recipe as a job of its own. A restore
// that still runs, whoever began it, is answered with, never started beside.
func (a *agent) restoreStart(ctx context.Context, ref RunRef) (Receipt, error) {
	if _, err := a.recipeGet(ctx, ref); err != nil {
		return Receipt{}, err
	}
	s, err := a.store(true)
	if err != nil {
		return Receipt{}, err
	}
	last := lastRestore(s, ref.Run)
	if last > 0 {
		r, err := a.receipt(ctx, s, restoreUnit(ref.Run, last))
		if c := closingOf(s, ref.Run); err == nil && (r.State == stateBegun || c != nil && c.Outcome == "restored") {
			return r, nil // it runs, or this round is over
		}
		if errors.Is(err, fs.ErrNotExist) { // asked for, never begun: the same number again
			last--
		}
	}
	g, _, err := a.claim(s, ref.Run, ByController)
	if err != nil {
		return Receipt{}, err
	}
	if err := a.watch(ctx, s, g); err != nil {
		fmt.Fprintln(os.Stderr, err) // the way back goes without it
	}
	unit := restoreUnit(ref.Run, last+1)
	job := Job{Unit: unit, Run: ref.Run, Args: []string{"restore", ref.Run}}
	return a.launch(ctx, job, job.Args...)
}

func restoreUnit(run string, n int) string {
	return fmt.Sprintf("deployer-restore-%s-%d.service", run, n)
}

func lastRestore(s *store, run string) int {
	last := 0
	jobs, _ := s.names("jobs")
	for _, unit := range jobs {
		rest, ok := strings.CutPrefix(unit, "deployer-restore-"+run+"-")
		n, err := strconv.Atoi(strings.TrimSuffix(rest, ".service"))
		if ok && err == nil {
			last = max(last, n)
		}
	}
	return last
}

// runRestore is the verb restore: inside its unit, or typed by a person, it
// does what the recipe on the disk says.
func (a *agent) runRestore(ctx context.Context, run, unit string) (int, error) {
	recipe, err := a.recipeGet(ctx, RunRef{run})
	if err != nil {
		return 1, err
	}
	s, err := a.store(true)
	if err != nil {
		return 1, err
	}
	if unit != "" {
		return a.restoreAs(ctx, s, Job{Unit: unit, Run: run}, recipe, ByController)
	}
	job, err := a.enlistRestore(s, run)
	if err != nil {
		return 1, err
	}
	gate, err := s.gate(true)
	if err != nil {
		return 1, err
	}
	_, _, err = a.claim(s, run, ByPerson)
	_ = gate.Close()
	if err != nil {
		return 1, err
	}
	code, err := a.restoreAs(ctx, s, job, recipe, ByPerson)
	if err == nil && code == 0 { // there is no controller that would say so
		_, err = a.close(ctx, Closing{Run: run, Outcome: "restored", By: ByPerson})
	}
	return code, err
}

// enlistRestore writes the ticket of a restore that this process runs itself: the
// one that a controller that asks for it at this moment would write.
func (a *agent) enlistRestore(s *store, run string) (Job, error) {
	job := Job{Unit: restoreUnit(run, lastRestore(s, run)+1), Run: run, Args: []string{"restore", run}}
	return job, s.writeJSON(jobFile(job.Unit, "job.json"), job)
}

// restoreAs runs the recipe between the two writes of a receipt.
func (a *agent) restoreAs(ctx context.Context, s *store, job Job, recipe Recipe, by string) (int, error) {
	a.direct, a.baseline = true, append([]string{}, recipe.Before.Failed...)
	return a.recorded(s, job, func(r *Receipt) {
		r.By, r.Round = by, roundOf(s, job.Run)
		if err := a.awaitRestore(ctx, s); err != nil {
			r.Code = 1
			r.Result = []Outcome{{State: opFailed, Code: 1, Message: err.Error(), Hint: []string{a.Self[0] + " restore " + job.Run}}}
			return
		}
		defer a.restoring.Close()
		a.perform(ctx, s, recipe, r)
	})
}

// perform does every operation, also after one that failed: later ones mostly
// do not need it, and each that is done leaves less for a person. Progress is
// in the receipt after every one.
func (a *agent) perform(ctx context.Context, s *store, recipe Recipe, r *Receipt) {
	var own []string
	for _, op := range recipe.Operations {
		if op.Data != nil {
			own = append(own, dataFile(recipe.Run, *op.Data))
		}
	}
	for _, out := range a.settle(ctx, s, recipe.Run, own...) { // another choice of data
		if out.State == opFailed {
			r.Code = 1
		}
		if out.Message != "" {
			r.Result = append(r.Result, out)
		}
	}
	for i, op := range recipe.Operations {
		fmt.Fprintf(a.Stdout, "restore %s: %d of %d: %s\n", recipe.Run, i+1, len(recipe.Operations), op.Op)
		out := a.withheld(s, recipe.Run, op)
		if out == nil {
			done := a.apply(ctx, recipe.Run, op)
			out = &done
		}
		fmt.Fprintf(a.Stdout, "restore %s: %s: %s %s\n", recipe.Run, op.Op, out.State, out.Message)
		r.Result = append(r.Result, *out)
		if out.State == opFailed {
			r.Code = 1
		}
		if err := s.writeJSON(jobFile(r.Unit, "receipt.json"), r); err != nil {
			fmt.Fprintln(os.Stderr, err) // the disk may be full: restoring goes first
		}
	}
}

// withheld is how an operation fails that would start services on data that is
// restored in part, as a boot does; nil for others.
func (a *agent) withheld(s *store, run string, op Operation) *Outcome {
	if !slices.Contains([]string{DoActivate, DoStart, DoUnits, DoReboot}, op.Op) {
		return nil
	}
	for _, r := range restorations(s, run) {
		if r.State == dataBegun {
			return &Outcome{Op: op, State: opFailed, Hint: a.hint(run, op),
				Message: fmt.Sprintf("left out: /%s is restored in part, and services would work with that", r.Members[0].Name)}
		}
	}
	return nil
}

// awaitRestore takes the lock that only one restore of a host can hold, until
// the process ends.
func (a *agent) awaitRestore(ctx context.Context, s *store) (err error) {
	for deadline := time.Now().Add(restoreWaits); time.Now().Before(deadline); {
		if a.restoring, err = s.lock(restoreLock, false); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("another restore runs on this host")
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"
)

func runFile(run, file string) string { return path.Join("runs", run, file) }

// recipePut stores the undo of a lane: what a rollback, the host itself and a
// person at the console work from. It is on the disk before it answers; files'
// contents come first, so that no recipe names one that is not there.
func (a *agent) recipePut(_ context.Context, r Recipe) (RunRef, error) {
	ref := RunRef{r.Run}
	s, err := a.runStore(r.Run)
	if err != nil {
		return ref, err
	}
	if was := load[Recipe](s, runFile(r.Run, "recipe.json")); was != nil && was.Written.After(r.Written) {
		return ref, invalid("the host has a newer recipe of run %s: this one was asked for over a connection that was lost", r.Run)
	}
	r.Operations = slices.Clone(r.Operations)
	for i, op := range r.Operations {
		if _, ok := doers[op.Op]; !ok {
			return ref, invalid("this agent does not know the operation %s", op.Op)
		}
		if op.Op == DoWriteFile && op.Digest != "" {
			if err := a.keepContent(s, r.Run, op); err != nil {
				return ref, err
			}
			r.Operations[i].Content = nil
		}
	}
	if err := s.write(runFile(r.Run, "RESTORE.txt"), []byte(a.restoreText(r))); err != nil {
		return ref, err
	}
	return ref, s.writeJSON(runFile(r.Run, "recipe.json"), r)
}

// keepContent puts a file's content into the run's folder: what came along, or
// the file as it is on the host now if that is what the digest says.
func (a *agent) keepContent(s *store, run string, op Operation) error {
	if s.exists(contentFile(run, op.Digest)) {
		return nil
	}
	if op.Content == nil {
		op.Content, _ = os.ReadFile(a.host(op.Path))
	}
	if sum(op.Content) != op.Digest {
		return invalid("the content for %s is not %s", op.Path, op.Digest)
	}
	return s.write(contentFile(run, op.Digest), op.Content)
}

func (a *agent) recipeGet(_ context.Context, ref RunRef) (r Recipe, err error) {
	if err := checkName("run", ref.Run); err != nil {
		return r, err
	}
	s, err := a.store(false)
	if err == nil {
		err = s.readJSON(runFile(ref.Run, "recipe.json"), &r)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &Error{Code: "not-found", Message: "this host has no recipe of run " + ref.Run}
	}
	if err != nil {
		return r, err
	}
	if c := closingOf(s, ref.Run); c != nil && c.Outcome == Released {
		err = &Error{Code: "released", Message: "the way back of run " + ref.Run + " was given up when its snapshots were pruned"}
	}
	return r, err
}

// close ends a lane. The recipe stays, for a later rollback. So do the pins of a
// lane that was committed, since it can still be undone, and of a stuck one,
// which still has to be; those of others go.
func (a *agent) close(_ context.Context, c Closing) (Closing, error) {
	if !slices.Contains([]string{"committed", "restored", "stuck", "untouched", Released}, c.Outcome) {
		return c, invalid("a lane cannot end as %s", c.Outcome)
	}
	s, err := a.runStore(c.Run)
	if err != nil {
		return c, err
	}
	if was := closingOf(s, c.Run); c.Outcome == Released && (was == nil || was.Outcome == "stuck") {
		return c, invalid("run %s is open on this host: its way back is not released", c.Run)
	}
	c.Round = roundOf(s, c.Run)
	if err := a.reject(s, c); err != nil {
		return c, err
	}
	if err := s.writeJSON(runFile(c.Run, "closing.json"), c); err != nil || c.Outcome == "stuck" {
		return c, err // a stuck lane keeps its lock
	}
	if err := a.dropCutShort(s, c.Run); err != nil { // the lane is over all the same
		fmt.Fprintf(os.Stderr, "run %s: a set that was cut short is left: %v\n", c.Run, err)
	}
	if err := free(s, c.Run); err != nil || c.Outcome == "committed" {
		return c, err
	}
	return c, a.unpinRun(s, c.Run)
}

const rejectedFile = "rejected.json"

// reject remembers a system that failed here, and forgets one that was committed.
func (a *agent) reject(s *store, c Closing) error {
	all := map[string]Rejected{}
	_ = s.readJSON(rejectedFile, &all)
	g := guardOf(s, c.Run)
	switch {
	case c.Rejected != "":
		all[c.Rejected] = Rejected{Run: c.Run, Reason: c.Reason, Time: time.Now().UTC()}
	case c.Outcome == "committed" && g != nil && all[g.To] != Rejected{}:
		delete(all, g.To)
	default:
		return nil
	}
	return s.writeJSON(rejectedFile, all)
}

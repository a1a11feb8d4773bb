package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/pipeline"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type resumeOptions struct {
	takeOver, abort bool
	noWait          bool
	signs           []string
	jsonInto        string
}

func (a *app) resumeCmd() *cobra.Command {
	o := &resumeOptions{}
	c := a.takeUpCmd(o, "resume [RUN]", "Go on with a run that was interrupted or waits", `It asks every host first how it decided meanwhile, and fences out the process
that began the run, should that wake up. Then it goes on where the run stopped,
or goes back, if a host did or is not what it was left as.

The record is taken from this machine, or from the hosts, if the run was started
elsewhere: the configuration and access by SSH are enough.`)
	c.Flags().BoolVar(&o.noWait, "no-wait", false, "save the run and exit 4 where it would wait for a window")
	c.Flags().StringArrayVar(&o.signs, "sign", nil, "sign gate items for WHO, or WHO=NAME; recorded")
	return c
}

func (a *app) abortCmd() *cobra.Command {
	return a.takeUpCmd(&resumeOptions{abort: true}, "abort [RUN]", "Take back a run that was interrupted or waits",
		"Every host goes back to what it was before the run, verified; exit 22.")
}

func (a *app) takeUpCmd(o *resumeOptions, use, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error { return a.takeUp(c.Context(), arg(args), o) },
	}
	c.Flags().BoolVar(&o.takeOver, "take-over", false, "although another process works on the run; that one is fenced out")
	c.Flags().StringVar(&o.jsonInto, "json-into", "", "write every event to this file as JSON lines, too")
	return c
}

// takeUp makes this process the one that works on a run, and ends it.
func (a *app) takeUp(ctx context.Context, id string, o *resumeOptions) error {
	p, err := a.loadProject()
	if err != nil {
		return err
	}
	if err := writable(o.jsonInto); err != nil {
		return err
	}
	sig := interrupts(ctx, a.Streams)
	defer sig.release()
	sig.begin(&asTakenUp)
	sig.safe = "the run stays as it was"
	ctx = sig.ctx
	tools, err := a.tools(ctx, p)
	if err != nil {
		return err
	}
	human := view.NewHuman(a.Streams, zone(p))
	defer human.Close()
	ask := &asker{app: a, signs: o.signs, human: human}
	tools.Ask = ask
	r := &phases.Run{Type: "deploy", Project: p, Tools: tools}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	s := &session{human: human, started: time.Now()}
	defer s.close()
	found, err := a.own(ctx, s, r, id, o)
	if err := sig.ended(notTaken(err)); err != nil {
		return err
	}
	switch {
	case found.Undoes != "": // a rollback that did not get to its end
		s.close()
		sig.release()
		return a.rollback(context.WithoutCancel(ctx), found.Undoes, &rollbackOptions{yes: true, jsonInto: o.jsonInto, hosts: found.Hosts, goesBack: found.GoesBack})
	case found.DataOnly():
		r.Type, r.Runbook = found.Type, &runbooks.Runbook{Name: found.Runbook}
		return a.goOn(ctx, s, r, o, sig)
	}
	if err := sig.ended(a.rejoin(ctx, s, r, found, o)); err != nil {
		return err
	}
	if !o.abort {
		if err := sig.ended(r.Restock(ctx)); err != nil {
			return err
		}
	}
	ask.run = r.ID
	return a.goOn(ctx, s, r, o, sig)
}

// own takes a run's lease here and its locks on the hosts it has come to. A
// run that this machine has no record of is rebuilt from what its hosts kept.
func (a *app) own(ctx context.Context, s *session, r *phases.Run, id string, o *resumeOptions) (*state.Run, error) {
	store, err := state.OpenStore(state.ProjectKey(r.Project.Dir))
	if err != nil {
		return nil, err
	}
	r.Past = past(store)
	if r.Dir, err = a.openRun(r.Project, store, id); err != nil {
		return nil, err
	}
	log := &phases.Log{Sinks: []phases.Sink{s.human}}
	if r.Dir == nil {
		return a.rebuild(ctx, s, r, store, id, o)
	}
	row, plan, err := readRun(r.Dir)
	if err != nil {
		return nil, err
	}
	r.Plan = plan
	if o.abort {
		if err := noWayBack(row, r.Dir); err != nil {
			return nil, err
		}
	}
	if row.Finished() {
		return nil, &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("run %s is over: %s", row.ID, row.Outcome), Hint: []string{"deployer show " + row.ID}}
	}
	if row.Undoes != "" {
		return row.Run, nil
	}
	if err := s.lease(r.Dir, o.takeOver); err != nil {
		return nil, err
	}
	if err := a.lanes(r, row.Hosts); err != nil {
		return nil, err
	}
	r.ID = row.ID
	return row.Run, unseized(r.Seize(ctx, log, s.held.Epoch(), o.takeOver), row.Run)
}

// noWayBack refuses to take back a restore of data by its recipe: that is what
// carries it out.
func noWayBack(row view.Row, dir *state.RunDir) error {
	if !row.DataOnly() {
		return nil
	}
	f := &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("run %s is a restore of data: what it has replaced is kept, and restoring that undoes it", row.ID)}
	if !row.Finished() {
		f.Hint = append(f.Hint, "deployer resume "+row.ID+"   # first it has to get to its end")
	} else if cmd := undoData(dir); cmd != "" {
		f.Hint = append(f.Hint, cmd+"   # undo it")
	}
	f.Hint = append(f.Hint, "deployer show "+row.ID)
	return f
}

// undoData is the command that restores what a restore of data has replaced; ""
// where it has replaced nothing.
func undoData(dir *state.RunDir) (cmd string) {
	recs, _, _ := state.Read(dir.Path)
	for _, rec := range recs {
		var out agent.Outcome
		if rec.Kind == state.UndoDone && json.Unmarshal(rec.Data, &out) == nil && len(out.Kept) > 0 {
			cmd = phases.RestoreCommand(rec.Host, out.Kept)
		}
	}
	return cmd
}

// notTaken is an error of taking a run up: nothing was done, which is not to say
// that nothing was changed before.
func notTaken(err error) error {
	f := phases.AsFailure(err)
	if err == nil || f.Exit != phases.ExitFailed {
		return err
	}
	again := *f
	again.Exit, again.Safe = phases.ExitPrecondition, "the run stays as it was"
	return &again
}

// unseized is why a run cannot be taken up: with a host that was changed out of
// reach, nothing is safe by itself.
func unseized(err error, run *state.Run) error {
	f := phases.AsFailure(err)
	if err == nil || f.Exit != phases.ExitPrecondition || !run.Changed {
		return err
	}
	unknown := *f
	unknown.Exit, unknown.Safe = phases.ExitUnknown, "the run stays as it was"
	if !run.DataOnly() {
		unknown.Hint = append(unknown.Hint, "deployer rollback "+run.ID+" --host NAME   # only the host that answers")
	}
	return &unknown
}

// openRun is the run to take up, nil if this machine does not know it.
func (a *app) openRun(p *runbooks.Project, store *state.Store, id string) (*state.RunDir, error) {
	rows, err := a.rows(p)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if id == "" && row.Open() {
			return store.Find(row.ID)
		}
		if id == "last" || id != "" && strings.HasPrefix(row.ID, strings.ToLower(id)) {
			d, err := store.Find(id)
			if err != nil { // more than one
				err = usage(err, "deployer history")
			}
			return d, err
		}
	}
	return nil, nil
}

// rebuild finds a run on the project's hosts, fences its controller out, and
// makes its record here.
func (a *app) rebuild(ctx context.Context, s *session, r *phases.Run, store *state.Store, id string, o *resumeOptions) (*state.Run, error) {
	log := &phases.Log{Sinks: []phases.Sink{s.human}}
	if err := a.ask(ctx, r, log, id, true); err != nil {
		return nil, err
	}
	if err := r.Seize(ctx, log, 0, o.takeOver); err != nil {
		return nil, err
	}
	if err := rebuilt(ctx, r, store); err != nil {
		return nil, err
	}
	if err := s.lease(r.Dir, true); err != nil {
		return nil, err
	}
	row, _, err := readRun(r.Dir)
	if err == nil && o.abort {
		err = noWayBack(row, r.Dir)
	}
	return row.Run, err
}

// rebuilt makes a run's folder from what its hosts kept.
func rebuilt(ctx context.Context, r *phases.Run, store *state.Store) error {
	kept, plan, err := r.Kept(ctx, r.ID)
	if err != nil {
		return err
	}
	r.Dir, err = store.Rebuild(r.ID, kept, plan)
	if err != nil {
		return &phases.Failure{Exit: phases.ExitPrecondition, Err: err, Hint: []string{"deployer unlock " + r.ID + " --reason …   # if it is to be given up"}}
	}
	return nil
}

// ask finds the hosts that know a run: the one named, or the newest, which may
// have to be open.
func (a *app) ask(ctx context.Context, r *phases.Run, log *phases.Log, id string, open bool) error {
	var names []string
	for name := range r.Project.Hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := a.lanes(r, names); err != nil {
		return err
	}
	known, err := r.Known(ctx, log)
	if err != nil {
		return err
	}
	for _, lanes := range known {
		for _, l := range lanes {
			fits := l.Open() || l.Holder.Run == l.Run || !open && l.Recipe
			if !fits || !strings.HasPrefix(l.Run, strings.ToLower(id)) || l.Run == r.ID {
				continue
			}
			if id != "" && r.ID != "" {
				return usage(fmt.Errorf("cannot tell which run %q is: %s or %s; type more of it", id, r.ID, l.Run))
			}
			r.ID = max(r.ID, l.Run) // they sort by time
		}
	}
	if r.ID == "" {
		return &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("neither this machine nor a host knows %s", strings.TrimSpace("an open run "+id)), Hint: []string{"deployer history"}}
	}
	r.Lanes = slices.DeleteFunc(r.Lanes, func(l *phases.Lane) bool {
		knows := slices.ContainsFunc(known[l.Name], func(k agent.Lane) bool { return k.Run == r.ID })
		if !knows {
			l.Drop()
		}
		return !knows
	})
	return nil
}

func (a *app) lanes(r *phases.Run, names []string) error {
	for _, name := range names {
		conf := r.Project.Hosts[name]
		if conf == nil {
			return usage(fmt.Errorf("run %s has the host %q, deployer.yaml has not", r.ID, name))
		}
		if r.LaneOf(name) == nil {
			r.Lanes = append(r.Lanes, phases.NewLane(conf, r.Agents))
		}
	}
	return nil
}

// rejoin compiles the run again, from the same files: what was agreed to is
// what goes on.
func (a *app) rejoin(ctx context.Context, s *session, r *phases.Run, found *state.Run, o *resumeOptions) error {
	_, plan, err := readRun(r.Dir)
	if err != nil {
		return err
	}
	r.Plan, r.Revision, r.Runbook = plan, found.Revision, &runbooks.Runbook{Name: found.Runbook}
	if err := a.compile(r, found); err != nil && !o.abort {
		return err
	}
	if err := a.lanes(r, found.Hosts); err != nil {
		return err
	}
	// In the order of the run: the way back is its reverse.
	slices.SortFunc(r.Lanes, func(a, b *phases.Lane) int {
		return cmp.Compare(slices.Index(found.Hosts, a.Name), slices.Index(found.Hosts, b.Name))
	})
	return unseized(r.Seize(ctx, &phases.Log{Sinks: []phases.Sink{s.human}}, s.held.Epoch(), o.takeOver), found)
}

func (a *app) compile(r *phases.Run, found *state.Run) error {
	moved := func(what string) error {
		return &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("run %s cannot go on: %s", r.ID, what), Hint: []string{"deployer abort " + r.ID}}
	}
	if r.Plan == nil {
		return moved("its plan is not here")
	}
	_, rb, err := a.load(found.Runbook, found.Vars)
	if err != nil {
		return err
	}
	if un := r.Project.Unbuilt(rb); len(un) > 0 {
		return moved((&runbooks.Errors{List: un}).Error())
	}
	if rb.Digest != r.Plan.RunbookHash {
		return moved("the runbook " + rb.Name + " is not what it was")
	}
	r.Runbook = rb
	r.Phases, err = phases.Compile(pipeline.Kinds, &phases.Inputs{Project: r.Project, Runbook: rb})
	return err
}

// goOn opens the journal again and lets the engine decide.
func (a *app) goOn(ctx context.Context, s *session, r *phases.Run, o *resumeOptions, sig *signals) error {
	open, back := state.Open, o.abort || r.DataOnly() // by the hosts' recipes
	if back {
		open = state.OpenForRestore
	}
	journal, told, err := open(r.Dir.Path, s.held)
	var damage *state.Damage
	if errors.As(err, &damage) {
		return &phases.Failure{Exit: phases.ExitRefused, Err: err, Safe: "a run whose record is damaged only goes back", Hint: []string{"deployer abort " + r.ID}}
	}
	if err != nil {
		return err
	}
	if err := a.logTo(ctx, s, r, journal, o.jsonInto); err != nil {
		return err
	}
	if r.Plan != nil {
		s.human.Planned(r.Plan)
	}
	runner := &phases.Runner{Run: r, Log: s.log, Told: told, NoWait: a.noWait(o.noWait), Stop: sig.stop, Finish: func(ctx context.Context, out *phases.Outcome) { notifyAll(ctx, r, s.log, out) }}
	if err := runner.Again(ctx, s.held.Epoch()); err != nil && !back {
		return err
	}
	if r.DataOnly() {
		sig.begin(&asRollback)
		return a.ended(s, runner.RestoreAgain(context.WithoutCancel(ctx)), r)
	}
	if o.abort {
		sig.begin(&asRollback)
		return a.ended(s, runner.Abort(ctx), r)
	}
	if hasSnapshots(r) {
		sn := newSnapshots(ctx, r)
		defer sn.Close()
		r.Snapshots = sn
	}
	sig.begin(&asRun)
	return a.ended(s, runner.Resume(ctx), r)
}

func hasSnapshots(r *phases.Run) bool {
	return r.Project.Snapshots != nil && len(r.Project.Snapshots.Subvolumes) > 0
}

// noWait tells whether a run is saved where it would wait: nobody sits there.
func (a *app) noWait(flag bool) bool { return flag || a.noInput || os.Getenv("CI") != "" }

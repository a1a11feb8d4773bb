package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type rollbackOptions struct {
	dryRun, yes bool
	hosts       []string
	data        string
	subvolumes  []string
	reason      string
	jsonInto    string

	goesBack map[string][]string // as the rollback chose that this one goes on with
}

func (a *app) rollbackCmd() *cobra.Command {
	o := &rollbackOptions{}
	c := &cobra.Command{
		Use: "rollback [RUN]", Short: "Undo the last successful run, or the one named; verified",
		Long: `Every host of the run goes back to exactly what it was before the run: the
recorded system, generation and boot default, by path and number. The recipe
was written before the run's first change and is on the hosts. With the data of
a subvolume it does what deployer.yaml said when the run was made: it leaves it
as it is (keep), puts back the snapshot and keeps what that replaces (restore),
or asks (ask). --data restore --subvolume PATH, or with keep, decides otherwise.
Rolling back waits for no window and asks for no approval.

--dry-run says which files would be lost, change back or come back. For that it
takes a temporary snapshot on the host, and deletes it.`,
		Example: "  deployer rollback --dry-run\n  deployer rollback\n  deployer rollback --data restore --subvolume /persist",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error { return a.rollback(c.Context(), arg(args), o) },
	}
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.StringArrayVar(&o.hosts, "host", nil, "only this host of the run; may be repeated")
	f.StringVar(&o.data, "data", "", "keep or restore: the data of subvolumes with 'on_rollback: ask', or of those that --subvolume names")
	f.StringArrayVar(&o.subvolumes, "subvolume", nil, "what --data is about; may be repeated")
	_ = c.RegisterFlagCompletionFunc("data", cobra.FixedCompletions([]string{phases.Keep, phases.Restore}, cobra.ShellCompDirectiveNoFileComp))
	f.StringVar(&o.reason, "reason", "", "why; kept in the record")
	f.StringVar(&o.jsonInto, "json-into", "", "write every event to this file as JSON lines, too")
	return c
}

func arg(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return ""
}

func (a *app) rollback(ctx context.Context, id string, o *rollbackOptions) error {
	p, err := a.loadProject()
	if err == nil {
		err = hasHosts(p, o.hosts)
	}
	if err != nil {
		return err
	}
	sig := interrupts(ctx, a.Streams)
	defer sig.release()
	ctx = sig.ctx
	tools, err := a.tools(ctx, p)
	if err != nil {
		return err
	}
	human := view.NewHuman(a.Streams, zone(p))
	defer human.Close()
	dir, err := a.undoable(ctx, &phases.Run{Project: p, Tools: tools}, human, id)
	if err := sig.ended(err); err != nil {
		return err
	}
	row, plan, err := readRun(dir)
	if err == nil {
		err = noWayBack(row, dir)
	}
	if err == nil {
		err = a.notUndone(p, row)
	}
	if err == nil && row.Undoes != "" { // a rollback that did not get to its end
		sig.release()
		if o.goesBack = row.GoesBack; len(o.hosts) == 0 {
			o.hosts = row.Hosts
		}
		return a.rollback(context.WithoutCancel(ctx), row.Undoes, o)
	}
	if err != nil {
		return err
	}
	r := &phases.Run{Type: "rollback", Undoes: row.ID, Project: p, Runbook: &runbooks.Runbook{Name: row.Runbook}, Revision: row.Revision, Tools: tools}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	if err := sig.ended(a.lanesToUndo(ctx, r, row, plan, human, o.hosts)); err != nil {
		return err
	}
	human.Pause()
	ask := &asker{app: a, human: human}
	if err := sig.ended(a.chooseData(ctx, r, o, ask)); err != nil {
		return err
	}
	if a.showUndo(ctx, r, o); o.dryRun {
		return nil
	}
	if err := sig.ended(ask.confirm(ctx, "Roll back?", o.yes, "--yes")); err != nil {
		return err
	}
	sig.begin(&asRollback)
	return a.undo(ctx, r, o, human)
}

// undoable finds the run to undo: the one named, or the last that went well and
// is not undone yet. One that this machine has no record of is rebuilt from what
// its hosts kept.
func (a *app) undoable(ctx context.Context, r *phases.Run, human *view.Human, id string) (*state.RunDir, error) {
	store, err := state.OpenStore(state.ProjectKey(r.Project.Dir))
	if err != nil {
		return nil, err
	}
	all, err := store.Runs()
	if err != nil {
		return nil, err
	}
	mine := id == "last" || slices.ContainsFunc(all, func(d *state.RunDir) bool { return strings.HasPrefix(d.ID, strings.ToLower(id)) })
	switch {
	case id == "" && len(all) > 0:
		return lastGood(store)
	case mine:
		d, err := store.Find(id)
		if err != nil {
			return nil, usage(err, "deployer history")
		}
		return d, nil
	}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	if err := a.ask(ctx, r, &phases.Log{Sinks: []phases.Sink{human}}, id, false); err != nil {
		return nil, err
	}
	return r.Dir, rebuilt(ctx, r, store)
}

func lastGood(store *state.Store) (*state.RunDir, error) {
	d, err := store.LastGood()
	if err == nil && d == nil {
		err = fmt.Errorf("there is no successful run to undo")
	}
	if err != nil {
		return nil, &phases.Failure{Exit: phases.ExitRefused, Err: err, Hint: []string{"deployer history"}}
	}
	return d, nil
}

// notUndone refuses a run that was rolled back on all its hosts.
func (a *app) notUndone(p *runbooks.Project, row view.Row) error {
	rows, err := a.rows(p)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.ID == row.ID && r.Undone != "" {
			return &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("run %s is undone already, by %s", row.ID, r.Undone), Hint: []string{"deployer history"}}
		}
	}
	return nil
}

// lanesToUndo reaches every host of the run that has something to undo, and
// reads its recipe from there.
func (a *app) lanesToUndo(ctx context.Context, r *phases.Run, row view.Row, plan *phases.Plan, human *view.Human, only []string) error {
	log := &phases.Log{Sinks: []phases.Sink{human}}
	for _, name := range row.Hosts {
		status := row.Lanes[name].Status
		if status == state.Untouched || status == state.Restored || len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		conf := r.Project.Hosts[name]
		if conf == nil {
			return usage(fmt.Errorf("run %s has the host %q, deployer.yaml has not", row.ID, name))
		}
		l := phases.NewLane(conf, r.Agents)
		if err := r.Recall(ctx, l, row.ID, log); err != nil {
			l.Drop()
			if (status == "" || status == state.Planned) && phases.NoRecipe(err) { // the run ended before it came to this host
				continue
			}
			return unreachable(err, name)
		}
		r.Lanes = append(r.Lanes, l)
		if to := planned(plan, name); to != "" && l.Seen.System != to && l.Seen.System != l.Recipe.Before.System {
			return &phases.Failure{Exit: phases.ExitRefused, Host: name,
				Err:  fmt.Errorf("%s does not run what run %s left there (%s), nor what it found (%s), but %s: later runs have to be undone first", name, row.ID, phases.ShortPath(to), phases.ShortPath(l.Recipe.Before.System), phases.ShortPath(l.Seen.System)),
				Safe: "nothing was changed on any host", Hint: []string{"deployer history"}}
		}
	}
	if len(r.Lanes) == 0 {
		return &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("run %s left nothing to undo", row.ID), Hint: []string{"deployer show " + row.ID}}
	}
	return nil
}

// unreachable is a host of a rollback that cannot be had: the others can go
// back without it.
func unreachable(err error, name string) error {
	f := *phases.AsFailure(err)
	if f.Exit == phases.ExitFailed {
		f.Exit = phases.ExitPrecondition
	}
	f.Safe = "nothing was changed on any host"
	f.Hint = append(f.Hint, "# the other hosts go back without "+name+" by: --host NAME")
	return &f
}

func planned(p *phases.Plan, name string) string {
	if p == nil {
		return ""
	}
	for _, h := range p.Hosts {
		if h.Name == name {
			return h.To
		}
	}
	return ""
}

// showUndo is the preview: what every host goes back to, and how.
func (a *app) showUndo(ctx context.Context, r *phases.Run, o *rollbackOptions) {
	var rows []view.Undo
	for _, l := range slices.Backward(r.Lanes) {
		row := view.Undo{Host: l.Name, Now: l.Seen, Before: l.Recipe.Before, Operations: l.Recipe.Operations, Data: dataOf(ctx, l, o)}
		room, _, _ := r.Room(ctx, l, nil) // it is tried without, too: there is a ballast for it
		for _, f := range room {
			row.Room = append(row.Room, f.What)
		}
		rows = append(rows, row)
	}
	if a.json && o.dryRun {
		a.JSONDoc(rows)
		return
	}
	s := a.Streams
	if !o.dryRun {
		s = a.toErr()
	}
	s.Undo(r.Undoes, rows)
}

func (a *app) undo(ctx context.Context, r *phases.Run, o *rollbackOptions, human *view.Human) error {
	s, err := a.open(ctx, r, human, o.jsonInto)
	if err != nil { // a way back waits for no disk
		a.Notef("warning: there will be no record of this rollback in the project's history: %v\n", err)
		if s, err = a.openUnrecorded(ctx, r, human); err != nil {
			return err
		}
	}
	defer s.close()
	created := state.Created{Type: r.Type, Runbook: r.Runbook.Name, Undoes: r.Undoes, Revision: r.Revision, Hosts: names(r), GoesBack: goingBack(r), By: r.Owner, Reason: o.reason, Version: Version, CI: ciURL()}
	runner := &phases.Runner{Run: r, Log: s.log, Finish: func(ctx context.Context, o *phases.Outcome) { notifyAll(ctx, r, s.log, o) }}
	if err := runner.Begin(ctx, created); err != nil {
		return err
	}
	return a.ended(s, runner.Restore(ctx), r)
}

// readRun folds a run's journal and reads its plan, where it has one.
func readRun(dir *state.RunDir) (view.Row, *phases.Plan, error) {
	recs, damage, err := state.Read(dir.Path)
	if err != nil {
		return view.Row{}, nil, err
	}
	run := state.Fold(recs)
	row := view.Row{Run: run, Now: state.Derive(run, dir.Live()), Path: dir.Path}
	if damage != nil {
		row.Damage = damage.Error()
	}
	b, err := os.ReadFile(dir.PlanPath())
	if os.IsNotExist(err) {
		return row, nil, nil
	}
	if err != nil {
		return row, nil, err
	}
	var p phases.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return row, nil, fmt.Errorf("cannot read %s: %w", dir.PlanPath(), err)
	}
	return row, &p, nil
}

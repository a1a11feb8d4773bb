package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/pipeline"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type runOptions struct {
	vars     []string
	dryRun   bool
	yes      bool
	diff     bool
	changes  bool // --detailed-exitcode
	jsonInto string
	reason   string
	signs    []string
	noWait   bool
	retry    bool
}

func (o *runOptions) planFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.vars, "var", nil, "set a variable of the runbook, NAME=VALUE; may be repeated")
	f.BoolVar(&o.diff, "diff", false, "list every package, every detail and every undo")
	f.BoolVar(&o.changes, "detailed-exitcode", false, "exit 3 if there is something to do")
	_ = c.RegisterFlagCompletionFunc("var", cobra.NoFileCompletions)
}

func (a *app) planCmd() *cobra.Command {
	o := &runOptions{dryRun: true}
	c := &cobra.Command{
		Use: "plan RUNBOOK", Short: "Show what a run would do; contacts hosts read-only and changes nothing",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeRunbooks,
		RunE: func(c *cobra.Command, args []string) error { return a.run(c.Context(), args[0], o) },
	}
	o.planFlags(c)
	return c
}

func (a *app) runCmd() *cobra.Command {
	o := &runOptions{}
	c := &cobra.Command{
		Use: "run RUNBOOK", Short: "Run a runbook: all phases, and back by itself when one fails",
		Example: "  deployer run production --dry-run\n  deployer run production --var burn_in=1h --yes",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeRunbooks,
		RunE: func(c *cobra.Command, args []string) error { return a.run(c.Context(), args[0], o) },
	}
	o.planFlags(c)
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show the plan; changes nothing")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before the first change")
	f.StringVar(&o.jsonInto, "json-into", "", "write every event to this file as JSON lines, too")
	f.StringVar(&o.reason, "reason", "", "why; kept in the record")
	f.BoolVar(&o.retry, "retry-rejected", false, "also try a system that failed on its host before; needs --reason")
	f.BoolVar(&o.noWait, "no-wait", false, "save the run and exit 4 where it would wait for a window")
	f.StringArrayVar(&o.signs, "sign", nil, "sign gate items for WHO, or WHO=NAME; recorded")
	return c
}

func completeRunbooks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return runbooks.Shipped(), cobra.ShellCompDirectiveDefault
}

// run plans, asks, and executes.
func (a *app) run(ctx context.Context, name string, o *runOptions) error {
	if o.retry && o.reason == "" {
		return usage(errors.New("--retry-rejected needs a reason"), a.again("--reason TEXT"))
	}
	given, err := vars(o.vars)
	if err != nil {
		return err
	}
	p, rb, err := a.load(name, given)
	if err != nil {
		return err
	}
	if un := p.Unbuilt(rb); len(un) > 0 {
		return &runbooks.Errors{List: un}
	}
	if err := writable(o.jsonInto); err != nil {
		return err
	}
	sig := interrupts(ctx, a.Streams)
	defer sig.release()
	ctx = sig.ctx
	tools, err := a.tools(ctx, p)
	if err != nil {
		return err
	}
	ask := &asker{app: a, signs: o.signs}
	tools.Ask = ask
	r, err := phases.NewRun(pipeline.Kinds, p, rb, tools)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	r.Rejected = o.retry
	human := view.NewHuman(a.Streams, zone(p))
	defer human.Close()
	ask.human = human
	plan, err := r.MakePlan(ctx, &phases.Log{Sinks: []phases.Sink{human}})
	if err := sig.ended(err); err != nil {
		return err
	}
	human.Pause()
	if o.dryRun || plan.Nothing {
		return a.showPlan(plan, o)
	}
	if !a.json {
		a.toErr().Plan(plan, o.diff)
	}
	if err := sig.ended(ask.confirm(ctx, "Run it?", o.yes, "--yes")); err != nil {
		return err
	}
	sig.begin(&asRun)
	return a.execute(ctx, r, o, ask, sig.stop)
}

// writable finds out before anything else whether a file can be written.
func writable(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return usage(fmt.Errorf("cannot write --json-into: %w", err))
	}
	return f.Close()
}

// showPlan is the result of a plan, and of a run that has nothing to do.
func (a *app) showPlan(plan *phases.Plan, o *runOptions) error {
	if a.json {
		a.JSONDoc(plan)
	} else {
		a.Plan(plan, o.diff)
	}
	if o.changes && !plan.Nothing {
		return exitCode(phases.ExitChanges)
	}
	return nil
}

// toErr prints results to stderr: the plan of a run is not its result.
func (a *app) toErr() *view.Streams {
	return &view.Streams{Out: a.Err, Err: a.Err, TTY: a.TTY, Color: a.Color, ASCII: a.ASCII, Width: a.Width}
}

// execute runs a plan that was agreed to.
func (a *app) execute(ctx context.Context, r *phases.Run, o *runOptions, ask *asker, stop <-chan struct{}) error {
	s, err := a.open(ctx, r, ask.human, o.jsonInto)
	if err != nil {
		return err
	}
	defer s.close()
	ask.run = r.ID
	ask.human.Planned(r.Plan)
	created := state.Created{
		Type: r.Type, Runbook: r.Runbook.Name, Plan: r.Plan.Digest, Revision: r.Revision, Vars: r.Runbook.Vars,
		Hosts: names(r), By: r.Owner, Reason: o.reason, Version: Version, CI: ciURL(),
	}
	if hasSnapshots(r) {
		sn := newSnapshots(ctx, r)
		defer sn.Close()
		r.Snapshots = sn
	}
	runner := &phases.Runner{Run: r, Log: s.log, Stop: stop, NoWait: a.noWait(o.noWait), Finish: func(ctx context.Context, o *phases.Outcome) { notifyAll(ctx, r, s.log, o) }}
	if err := runner.Begin(ctx, created); err != nil {
		return err
	}
	return a.ended(s, runner.Execute(ctx), r)
}

// ended prints the end and writes the report.
func (a *app) ended(s *session, out *phases.Outcome, r *phases.Run) error {
	s.human.Close()
	e := view.Ended{Run: r.ID, Runbook: r.Runbook.Name, Took: time.Since(s.started).Seconds(), Undoes: r.Undoes, DataOnly: r.DataOnly(), Undo: undoData(r.Dir)}
	row, plan, err := readRun(r.Dir)
	if err == nil {
		err = state.WriteFile(r.Dir.ReportPath(), []byte(view.Report(row, plan, time.UTC)))
	}
	if err == nil {
		e.Report = r.Dir.ReportPath()
	}
	a.Outcome(out, e)
	if out.Exit != 0 {
		return exitCode(out.Exit)
	}
	return nil
}

// session is what a run that changes things keeps open.
type session struct {
	log     *phases.Log
	human   *view.Human
	held    *state.Lease
	started time.Time
	closers []func()
}

// lease makes this process the one that works on a run.
func (s *session) lease(dir *state.RunDir, takeOver bool) (err error) {
	var held *state.Held
	s.held, err = dir.Lease(takeOver)
	if errors.As(err, &held) {
		return &phases.Failure{Exit: phases.ExitWaiting, Err: err, Hint: []string{"deployer status", "# to take over from it: --take-over"}}
	}
	if err == nil {
		s.closers = append(s.closers, func() { _ = s.held.Release() })
	}
	return err
}

func (s *session) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

// open makes the run's folder, lease, journal and log.
func (a *app) open(ctx context.Context, r *phases.Run, human *view.Human, jsonInto string) (_ *session, err error) {
	s := &session{human: human, started: time.Now()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	store, err := state.OpenStore(state.ProjectKey(r.Project.Dir))
	if err != nil {
		return nil, err
	}
	if r.Dir, err = store.NewRun(); err != nil {
		return nil, err
	}
	r.Past = past(store)
	return s, a.record(ctx, s, r, jsonInto)
}

// openUnrecorded is open for a rollback whose project's state cannot be written:
// its record lies in a folder for temporary files.
func (a *app) openUnrecorded(ctx context.Context, r *phases.Run, human *view.Human) (*session, error) {
	dir, err := os.MkdirTemp("", "deployer-rollback-")
	if err != nil {
		return nil, err
	}
	r.Dir = &state.RunDir{ID: filepath.Base(dir), Path: dir}
	if err := os.Mkdir(filepath.Join(dir, "output"), 0o700); err != nil {
		return nil, err
	}
	s := &session{human: human, started: time.Now()}
	return s, a.record(ctx, s, r, "")
}

// past looks up how an earlier run's record says a lane ended.
func past(store *state.Store) func(run, host string) state.Status {
	return func(run, host string) state.Status {
		dir, err := store.Find(run)
		if err != nil {
			return ""
		}
		row, _, err := readRun(dir)
		if err != nil {
			return ""
		}
		return row.Lanes[host].Status
	}
}

// record takes the run's lease and starts its journal, log and views.
func (a *app) record(ctx context.Context, s *session, r *phases.Run, jsonInto string) error {
	r.ID = r.Dir.ID
	if err := s.lease(r.Dir, false); err != nil {
		return err
	}
	if r.Plan != nil {
		if err := state.WriteFile(r.Dir.PlanPath(), mustJSON(r.Plan)); err != nil {
			return err
		}
	}
	journal, err := state.Create(r.Dir.Path, s.held)
	if err != nil {
		return err
	}
	return a.logTo(ctx, s, r, journal, jsonInto)
}

// logTo makes the run's log and views over its journal.
func (a *app) logTo(ctx context.Context, s *session, r *phases.Run, journal *state.Journal, jsonInto string) error {
	s.closers = append(s.closers, func() { _ = journal.Close() })
	if err := journal.Redact(secretValues(ctx, r.Project)...); err != nil {
		return err
	}
	log, closeLog, err := a.logger(r.Dir)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, closeLog)
	r.Log = log
	s.log = &phases.Log{Run: r.ID, Journal: journal, Sinks: []phases.Sink{logSink{log}}}
	return a.sinks(s, s.human, jsonInto)
}

// sinks are the views: text or JSON, and JSON into a file beside either.
func (a *app) sinks(s *session, human *view.Human, jsonInto string) error {
	if a.json {
		human.Close()
		s.log.Sinks = append(s.log.Sinks, &view.JSON{W: a.Out})
	} else {
		s.log.Sinks = append(s.log.Sinks, human)
	}
	if jsonInto == "" {
		return nil
	}
	var w io.Writer
	f, err := os.OpenFile(jsonInto, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return usage(fmt.Errorf("cannot write --json-into: %w", err))
	}
	w = f
	s.closers = append(s.closers, func() { _ = f.Close() })
	s.log.Sinks = append(s.log.Sinks, &view.JSON{W: w})
	return nil
}

func names(r *phases.Run) []string {
	var n []string
	for _, l := range r.Lanes {
		n = append(n, l.Name)
	}
	return n
}

// ciURL is the address of the CI job that runs this, where there is one.
func ciURL() string {
	for _, k := range []string{"CI_JOB_URL", "BUILD_URL", "BUILDKITE_BUILD_URL"} {
		if v := os.Getenv(k); v != "" {
			return v
		}
	}
	if id := os.Getenv("GITHUB_RUN_ID"); id != "" {
		return os.Getenv("GITHUB_SERVER_URL") + "/" + os.Getenv("GITHUB_REPOSITORY") + "/actions/runs/" + id
	}
	return ""
}

// zone is where times are shown: that of the first host that says one.
func zone(p *runbooks.Project) *time.Location {
	for _, h := range p.Hosts {
		if z, err := time.LoadLocation(h.Zone); err == nil && h.Zone != "" {
			return z
		}
	}
	return time.Local
}

var errDeclined = errors.New("not confirmed")

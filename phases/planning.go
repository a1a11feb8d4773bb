package phases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// NewRun compiles a runbook. Nothing is contacted.
func NewRun(kinds []Kind, p *runbooks.Project, rb *runbooks.Runbook, tools Tools) (*Run, error) {
	in := &Inputs{Project: p, Runbook: rb}
	compiled, err := Compile(kinds, in)
	if err != nil {
		return nil, &Failure{Exit: ExitUsage, Err: err}
	}
	r := &Run{Type: "deploy", Project: p, Runbook: rb, Phases: compiled, Tools: tools}
	for _, name := range Lanes(compiled) {
		conf := p.Hosts[name]
		if conf == nil {
			return nil, &Failure{Exit: ExitUsage, Err: fmt.Errorf("host %q is not in deployer.yaml", name)}
		}
		r.Lanes = append(r.Lanes, NewLane(conf, tools.Agents))
	}
	return r, nil
}

// NewLane makes a lane that is not connected yet.
func NewLane(conf *runbooks.Host, agents Agents) *Lane {
	return &Lane{Name: conf.Name, Conf: conf, agents: agents}
}

// MakePlan reaches every host, looks without changing anything, and asks every
// step what it would do. All that stands in the way is reported at once.
func (r *Run) MakePlan(ctx context.Context, log *Log) (*Plan, error) {
	r.log = log
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	if err := r.findings(ctx); err != nil {
		return nil, err
	}
	r.Revision = r.Nix.Revision(ctx, r.Project.Flake)
	p := &Plan{
		Schema: 1, Runbook: r.Runbook.Name, RunbookHash: r.Runbook.Digest, Description: r.Runbook.Description,
		Flake: r.Project.Flake, Revision: r.Revision, Vars: r.Runbook.Vars, Changed: r.Runbook.Changed,
	}
	for _, phase := range r.Phases {
		pp, err := r.planPhase(ctx, phase)
		if err != nil {
			return nil, err
		}
		p.Phases = append(p.Phases, pp)
	}
	p.Nothing = true
	var found []Finding
	for _, l := range r.Lanes {
		h := r.planHost(ctx, l)
		if h.Diff != nil {
			cramped, notes, _ := r.Room(ctx, l, &h) // an error: unknown until run
			found, h.Notes = append(found, cramped...), append(h.Notes, notes...)
		}
		if p.reboots(l.Name) { // so none will be pending
			h.Reboot = ""
		}
		p.Nothing = p.Nothing && h.Unchanged
		p.Hosts = append(p.Hosts, h)
	}
	if err := Refuse(found); err != nil {
		return nil, err
	}
	p.Seal()
	r.Plan = p
	return p, nil
}

// reach connects to all hosts side by side.
func (r *Run) reach(ctx context.Context) error {
	errs := make([]error, len(r.Lanes))
	var wg sync.WaitGroup
	for i, l := range r.Lanes {
		if l.Host != nil {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = r.Reach(ctx, l)
		}()
	}
	wg.Wait()
	var all *multierror.Error
	for _, err := range errs {
		if err != nil {
			all = multierror.Append(all, err)
		}
	}
	return gather(all.ErrorOrNil())
}

// gather makes one failure of what went wrong with several hosts, with every
// host's hints.
func gather(err error) error {
	var all *multierror.Error
	if !errors.As(err, &all) {
		return err
	}
	f := &Failure{Exit: ExitPrecondition, Safe: "nothing was changed on any host"}
	var what []string
	for _, e := range all.Errors {
		what = append(what, e.Error())
		var he *host.Error
		if errors.As(e, &he) {
			f.Hint = append(f.Hint, he.Hint...)
		}
	}
	f.Err = errors.New(strings.Join(what, "\n"))
	return f
}

// Reach connects a lane and looks at its host with plain commands of the login
// user: no agent is installed, nothing is written.
func (r *Run) Reach(ctx context.Context, l *Lane) error {
	_ = r.log.Record(state.Record{Kind: state.StepProgress, Host: l.Name, Text: "looking at " + l.Name}, nil)
	h, err := r.Dial(ctx, l.Conf)
	if err != nil {
		return err
	}
	l.Host = h
	args := append([]string{"sh", "-s", "--"}, r.paths()...)
	asked := time.Now()
	res, err := h.Run(ctx, host.Command{Args: args, Stdin: strings.NewReader(agent.FactsScript)})
	if err != nil {
		return err
	}
	if l.Seen, err = agent.ParseFacts(res.Stdout); err != nil {
		return fmt.Errorf("%s: %w (%s)", l.Name, err, strings.TrimSpace(string(res.Stderr)))
	}
	l.Skew = skew(l.Seen.Time, asked, time.Now())
	return nil
}

// skew is how far a host's clock is off, if it was read between two moments:
// at least so much, and never for the time that the answer took.
func skew(clock, from, to time.Time) time.Duration {
	from = from.Truncate(time.Second) // as the host's is
	switch {
	case clock.IsZero(), !clock.Before(from) && !clock.After(to):
		return 0
	case clock.Before(from):
		return clock.Sub(from)
	}
	return clock.Sub(to)
}

// paths are the file systems whose space and type matter.
func (r *Run) paths() []string {
	paths := []string{"/boot", "/nix"}
	if s := r.Project.Snapshots; s != nil {
		for p := range s.Subvolumes {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// findings asks every step what it would trip over.
func (r *Run) findings(ctx context.Context) error {
	var found []Finding
	for _, phase := range r.Phases {
		for _, s := range phase.Steps {
			found = append(found, r.requires(ctx, phase, s)...)
		}
	}
	return Refuse(found)
}

func (r *Run) requires(ctx context.Context, phase Compiled, s Step) []Finding {
	if q, ok := s.(Requirer); ok {
		return q.Requires(ctx, r.envOf(phase.Name, s))
	}
	return nil
}

// Refuse makes one failure of findings; the same one twice counts once.
func Refuse(found []Finding) error {
	if len(found) == 0 {
		return nil
	}
	f := &Failure{Exit: ExitPrecondition, Safe: "nothing was changed on any host"}
	var what []string
	for _, x := range found {
		if slices.Contains(what, x.String()) {
			continue
		}
		what = append(what, x.String())
		for _, h := range x.Hint {
			if !slices.Contains(f.Hint, h) {
				f.Hint = append(f.Hint, h)
			}
		}
	}
	f.Err = errors.New(strings.Join(what, "\n"))
	return f
}

func (r *Run) envOf(phase string, s Step) *Env {
	env := &Env{Run: r, Phase: phase, Step: Key(phase, s)}
	if h := HostOf(s); h != "" {
		env.Lane = r.LaneOf(h)
	}
	env.say = func(text string) {
		_ = r.log.Record(state.Record{Kind: state.StepProgress, Phase: phase, Step: env.Step, Host: HostOf(s), Text: text}, nil)
	}
	return env
}

func (r *Run) planPhase(ctx context.Context, phase Compiled) (PlanPhase, error) {
	pp := PlanPhase{Name: phase.Name, Kind: phase.Kind}
	for _, s := range phase.Steps {
		ps, err := r.planStep(ctx, phase.Name, s)
		if err != nil {
			f := *AsFailure(err)
			if f.Step == "" {
				f.Phase, f.Step, f.Host = phase.Name, s.Name(), HostOf(s)
			}
			if f.Safe == "" {
				f.Safe = "nothing was changed on any host"
			}
			return pp, &f
		}
		pp.Steps = append(pp.Steps, ps)
	}
	return pp, nil
}

func (r *Run) planStep(ctx context.Context, phase string, s Step) (PlanStep, error) {
	env := r.envOf(phase, s)
	ps := PlanStep{Key: env.Step, Name: s.Name(), Host: HostOf(s), Class: ClassOf(s)}
	if p, ok := s.(Planner); ok {
		c, err := p.Plan(ctx, env)
		if err != nil {
			return ps, err
		}
		ps.Text, ps.Detail, ps.Nothing, ps.Unknown = c.Text, c.Detail, c.Nothing, c.Unknown
	}
	if ps.Nothing {
		return ps, nil
	}
	undo, err := undoOf(ctx, env, s)
	ps.Undo = undo
	return ps, err
}

func (r *Run) planHost(ctx context.Context, l *Lane) PlanHost {
	user, _ := l.Host.Login()
	h := PlanHost{
		Name: l.Name, Address: l.Conf.Address, User: user, System: l.Conf.System,
		From: l.Seen, To: l.To.Out, Unchanged: l.Unchanged(),
	}
	if h.Unchanged || l.To.Out == "" {
		return h
	}
	l.survey(ctx)
	h.Units = nix.Units(l.Survey.Units, l.To.Out)
	h.Reboot = nix.RebootReason(l.Survey.Booted, l.To.Out)
	if c, err := r.Nix.Closure(ctx, l.To.Out); err == nil && l.Survey.Closure != nil {
		h.Diff = nix.Compare(l.Survey.Closure, c)
	}
	h.Notes = r.notCovered(l)
	return h
}

// survey looks once at what the host runs in detail.
func (l *Lane) survey(ctx context.Context) {
	if l.Survey.Units != nil {
		return
	}
	if s, err := nix.Look(ctx, l.Host); err == nil {
		l.Survey = s
	}
}

// notCovered says what a rollback of this host would not bring back.
func (r *Run) notCovered(l *Lane) []string {
	var notes []string
	if lacks := LacksModule(l); lacks != "" {
		notes = append(notes, "no guard after a reboot: the "+lacks+" system does not import deployer-host.nix. Before the profile step a reboot brings the old system back by itself, after it only `deployer rollback` does")
	}
	if r.Project.Snapshots == nil || len(r.Project.Snapshots.Subvolumes) == 0 {
		return append(notes, "no snapshots declared: data is not covered")
	}
	return append(notes, policies(r.Project.Snapshots)+"; other subvolumes, /boot and anything off the host are in no snapshot")
}

// reboots tells whether a host will be rebooted for certain.
func (p *Plan) reboots(host string) bool {
	for _, ph := range p.Phases {
		for _, s := range ph.Steps {
			if s.Host == host && s.Class == Reboot && !s.Unknown && !s.Nothing {
				return true
			}
		}
	}
	return false
}

// LacksModule says which of a lane's systems has no guard after a reboot: new,
// old, or "" where both have one. A new one that is not on this machine says nothing.
func LacksModule(l *Lane) string {
	_, here := os.Stat(l.To.Out)
	_, module := os.Stat(filepath.Join(l.To.Out, agent.ModuleUnit))
	switch {
	case here == nil && module != nil:
		return "new"
	case !l.Seen.Module:
		return "old"
	}
	return ""
}

// Surveyed makes sure that the lane was surveyed and returns the result.
func (l *Lane) Surveyed(ctx context.Context) nix.Survey {
	l.survey(ctx)
	return l.Survey
}

// NoRecipe tells whether an error of Recall means that the run never came to
// change the host.
func NoRecipe(err error) bool {
	var ae *agent.Error
	return errors.As(err, &ae) && ae.Code == "not-found"
}

// Recall reaches a host for a rollback, and reads the recipe of the run that is
// to be undone from the host itself.
func (r *Run) Recall(ctx context.Context, l *Lane, run string, log *Log) error {
	r.log = log
	if err := r.Reach(ctx, l); err != nil {
		return err
	}
	if err := l.Call(ctx, agent.OpRecipeGet, agent.RunRef{Run: run}, &l.Recipe); err != nil {
		return &Failure{Exit: ExitPrecondition, Host: l.Name, Err: fmt.Errorf("the host has no recipe of run %s: %w", run, err)}
	}
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{}, &l.Seen); err != nil {
		return err
	}
	l.Before = l.Recipe.Before
	return nil
}

// Look reaches a host for a status: plain commands, nothing else.
func (r *Run) Look(ctx context.Context, l *Lane) error {
	r.log = &Log{}
	return r.Reach(ctx, l)
}

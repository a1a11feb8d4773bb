package phases_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/state"
)

// rig is a run of made-up steps on fake machines. Its language, after snapd's
// sequenceTests: steps are words, `name@host:flag,flag`; without a host they
// run on the controller.
//
//	undo[=kind]    the step has an undo: an operation of the recipe
//	fail, panic    it fails after its effect
//	skip, needless it returns Skip; it says before that it is not needed
//	retry=n wait=n the first n attempts ask for another; a wait takes a minute
//	cut, away, die the link goes; it goes for good; the agent is killed
//	blink=n        the link goes n times while it looks at the host
//	boots          so it does while it changes something, and the host boots
//	stop, cancel   the operator interrupts once; twice
//	stoplater      the operator interrupts twelve seconds from now
//	stuck          its undo fails
//	nostore        its undo cannot be stored on the host
//	nointent, nodone  the journal fails from its intent, from its outcome on
//
// A trace has a word for every effect: `a` done, `a!` failed, `a-` skipped,
// `a?` again later, `~a` undone, `~a!` could not be undone.
type rig struct {
	run      *phases.Run
	runner   *phases.Runner
	machines map[string]*phasetest.Machine
	trace    *phasetest.Trace
	journal  *journal
	cancel   context.CancelFunc
	ctx      context.Context
	stop     chan struct{}
	once     sync.Once

	mu     sync.Mutex
	events []string // intents, stored recipes and effects, in their order
}

func (r *rig) event(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

// journal keeps records as state's does, and fails when it is told to.
type journal struct {
	mu     sync.Mutex
	rig    *rig
	recs   []state.Record
	breaks func(state.Record) bool
	broken error
	full   bool
}

func (j *journal) Append(rec *state.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.breaks != nil && j.breaks(*rec) {
		j.broken = errors.New("the disk is gone")
	}
	if j.broken != nil {
		return j.broken
	}
	rec.Seq = uint64(len(j.recs) + 1)
	j.recs = append(j.recs, *rec)
	if rec.Kind == state.StepIntent {
		j.rig.event("intent %s %d", rec.Step, rec.Attempt)
	}
	return nil
}

func (j *journal) Full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.full
}

func (j *journal) records() []state.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.recs)
}

// newRig reads steps. Machines are in the order in which steps name them.
func newRig(t *testing.T, steps string) *rig {
	t.Helper()
	return makeRig(t, steps, &rig{machines: map[string]*phasetest.Machine{}, trace: &phasetest.Trace{}})
}

// again is another process over the same hosts and the same journal, in which
// nobody interrupts.
func (r *rig) again(t *testing.T, steps string) *rig {
	t.Helper()
	n := makeRig(t, uninterrupted.ReplaceAllString(steps, ""), &rig{machines: r.machines, trace: r.trace, events: r.events})
	n.runner.Told = r.journal.records()
	n.journal.recs = r.journal.records()
	for _, l := range n.run.Lanes {
		l.Locked = false
		h, err := l.Host.Fresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Host = h
	}
	return n
}

var uninterrupted = regexp.MustCompile(`stoplater|stop|cancel`)

func makeRig(t *testing.T, steps string, r *rig) *rig {
	r.stop = make(chan struct{})
	r.journal = &journal{rig: r}
	r.ctx, r.cancel = context.WithCancel(t.Context())
	phase := phases.Compiled{Name: "p", Kind: "made-up"}
	var machines []*phasetest.Machine
	for _, word := range strings.Fields(steps) {
		s := r.step(word)
		if s.Lane != "" && r.machines[s.Lane] == nil {
			m := phasetest.Make(t, s.Lane)
			m.Trace = r.trace
			r.machines[s.Lane] = m
		}
		if m := r.machines[s.Lane]; m != nil && !slices.Contains(machines, m) {
			m.Handle(agent.OpRecipePut, r.stores(m))
			machines = append(machines, m)
		}
		phase.Steps = append(phase.Steps, s)
	}
	if len(machines) == 0 {
		machines = append(machines, phasetest.Make(t, "unused"))
	}
	r.run, _ = phasetest.Run(machines...)
	for _, l := range r.run.Lanes {
		l.Before, l.Locked = l.Seen, true // as after the lock step
	}
	r.run.Phases = []phases.Compiled{phase}
	log := &phases.Log{Run: r.run.ID, Journal: r.journal}
	r.runner = &phases.Runner{Run: r.run, Log: log, Stop: r.stop}
	return r
}

func (r *rig) interrupt() { r.once.Do(func() { close(r.stop) }) }

// stores is recipe.put of a machine: it says what is stored, or refuses.
func (r *rig) stores(m *phasetest.Machine) phasetest.Handler {
	return func(args json.RawMessage) (any, error) {
		var recipe agent.Recipe
		if err := json.Unmarshal(args, &recipe); err != nil {
			return nil, err
		}
		for _, op := range recipe.Operations {
			if strings.HasSuffix(op.Name, "-nostore") {
				return nil, &agent.Error{Code: "no-space", Message: "no room for the recipe", Hint: []string{"make room"}}
			}
		}
		for _, op := range recipe.Operations {
			r.event("stored %s@%s", op.Name, m.Fake.Name())
		}
		return m.Default(agent.OpRecipePut, args)
	}
}

// execute runs all of it and gives the trace, as in "a b! ~a = 20 h1:restored".
func (r *rig) execute() (string, *phases.Outcome) {
	defer r.cancel()
	o := r.runner.Execute(r.ctx)
	return r.told(o), o
}

func (r *rig) told(o *phases.Outcome) string {
	words := []string{r.trace.String(), "=", strconv.Itoa(o.Exit)}
	for _, l := range r.run.Lanes {
		if r.machines[l.Name] != nil {
			words = append(words, l.Name+":"+string(o.Lanes[l.Name]))
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

// step is one word.
type step struct {
	phases.On
	rig   *rig
	name  string
	flags map[string]string
}

func (r *rig) step(word string) *step {
	word, flags, _ := strings.Cut(word, ":")
	s := &step{rig: r, flags: map[string]string{}}
	s.name, s.Lane, _ = strings.Cut(word, "@")
	s.Kind = phases.Idempotent
	for f := range strings.SplitSeq(flags, ",") {
		k, v, _ := strings.Cut(f, "=")
		s.flags[k] = v
	}
	key := phases.Key("p", s)
	breaks := func(f func(state.Record) bool) {
		r.journal.breaks = func(rec state.Record) bool { return rec.Step == key && f(rec) }
	}
	if s.has("nointent") {
		breaks(func(rec state.Record) bool { return rec.Kind == state.StepIntent })
	}
	if s.has("nodone") {
		breaks(func(rec state.Record) bool { return rec.Kind == state.StepDone })
	}
	return s
}

func (s *step) has(flag string) bool { _, ok := s.flags[flag]; return ok }

func (s *step) count(flag string) int { n, _ := strconv.Atoi(s.flags[flag]); return n }

func (s *step) Name() string { return s.name }

func (s *step) Skip(context.Context, *phases.Env) (string, error) {
	if s.has("needless") {
		return "not needed", nil
	}
	return "", nil
}

// Undo is an operation that leaves a machine as it was, under the step's name.
func (s *step) Undo(_ context.Context, env *phases.Env) ([]agent.Operation, error) {
	if !s.has("undo") || env.Attempt > 1 {
		return nil, nil
	}
	old := env.Lane.Seen
	op := agent.Operation{Op: s.flags["undo"], Name: s.name}
	switch op.Op {
	case "":
		op.Op = agent.DoWriteFile
	case agent.DoActivate:
		op.System = old.System
	case agent.DoProfile:
		op.System, op.Generation = old.Profile.System, old.Profile.Generation
	case agent.DoBoot:
		op.Boot = &old.Boot
	}
	if s.has("nostore") {
		op.Name += "-nostore"
	}
	return []agent.Operation{op}, nil
}

func (s *step) Do(ctx context.Context, env *phases.Env) error {
	s.rig.event("effect %s %d", env.Step, env.Attempt)
	mark, err := s.do(ctx, env)
	s.rig.trace.Add(s.name + mark)
	if s.has("panic") {
		panic("a bug of ours")
	}
	return err
}

func (s *step) do(ctx context.Context, env *phases.Env) (string, error) {
	if s.has("stuck") {
		s.rig.machines[s.Lane].With(func(w *phasetest.World) { w.Broken[s.name] = true })
	}
	if s.has("stoplater") {
		time.AfterFunc(12*time.Second, s.rig.interrupt)
	}
	switch {
	case s.has("fail"):
		return "!", errors.New("it does not work")
	case s.has("skip"):
		return "-", phases.Skip("there is nothing to do")
	case env.Attempt <= s.count("retry"):
		return "?", phases.Retry{After: 5 * time.Second, Reason: "busy"}
	case env.Attempt <= s.count("wait"):
		return "?", phases.Wait{Reason: "somebody has to come"}
	case s.has("stop"):
		s.rig.interrupt()
	case s.has("cancel"):
		s.rig.cancel()
		return "!", ctx.Err()
	case s.has("blink"), s.has("boots"):
		if err := s.blink(ctx, env); err != nil {
			return "!", err
		}
	case s.has("cut"), s.has("away"), s.has("die"):
		return "!", s.lose(ctx, env)
	}
	return "", nil
}

// blink looks at the host, with a link that comes back each time it goes.
func (s *step) blink(ctx context.Context, env *phases.Env) error {
	m, left := s.rig.machines[s.Lane], s.count("blink")
	if s.has("boots") {
		m.Handle(agent.OpPin, func(json.RawMessage) (any, error) {
			m.Handle(agent.OpPin, nil)
			m.With(func(w *phasetest.World) { w.Facts.BootID = "boot-2" })
			m.Away(errors.New("for a moment"))
			m.Away(nil)
			return nil, phasetest.ErrDie
		})
		return env.Lane.Call(ctx, agent.OpPin, agent.Pin{Run: env.ID, Name: "x"}, nil)
	}
	m.Handle(agent.OpFacts, func(args json.RawMessage) (any, error) {
		if left--; left < 0 {
			return m.Default(agent.OpFacts, args)
		}
		m.Away(errors.New("for a moment"))
		m.Away(nil)
		return nil, phasetest.ErrDie
	})
	defer m.Handle(agent.OpFacts, nil)
	var now agent.Facts
	return env.Lane.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now)
}

// lose decides something on the host, which is never done twice, in the midst of which the link or the agent goes.
func (s *step) lose(ctx context.Context, env *phases.Env) error {
	m := s.rig.machines[s.Lane]
	m.Handle(agent.OpConfirm, func(json.RawMessage) (any, error) {
		m.Handle(agent.OpConfirm, nil)
		switch {
		case s.has("cut"):
			m.Away(errors.New("for a moment"))
			m.Away(nil)
		case s.has("away"):
			m.Away(&host.Error{Kind: host.Timeout, Host: s.Lane, Err: errors.New("nothing answers")})
		}
		return nil, phasetest.ErrDie
	})
	return env.Lane.Call(ctx, agent.OpConfirm, agent.RunRef{Run: env.ID}, nil)
}

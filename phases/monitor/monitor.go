// Package monitor looks at the switched hosts again and again for a declared
// time. A rule that is breached warns, alerts, or rolls the run back; after
// rollback_within it only alerts.
package monitor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/validate"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Compile makes one step for each switched host.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	var steps []phases.Step
	for _, host := range in.Switched() {
		steps = append(steps, &watch{On: phases.On{Lane: host}, conf: p.Monitor})
	}
	return steps, nil
}

type watch struct {
	phases.On
	conf *runbooks.Monitor
}

func (*watch) Name() string { return "watch" }

func (w *watch) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	c := phases.Change{Text: fmt.Sprintf("for %s, every %s: %d rules", w.conf.For, w.conf.Every, len(w.conf.Rules))}
	for _, r := range w.conf.Rules {
		if r.Check != nil {
			c.Detail = append(c.Detail, r.Do+": "+validate.Describe(r.Check.For(env.Lane.Conf)))
		}
	}
	if w.conf.RollbackWithin > 0 {
		c.Detail = append(c.Detail, fmt.Sprintf("breaches roll back for the first %s, later ones alert", w.conf.RollbackWithin))
	}
	return c, nil
}

// breach is a rule that does not hold now; it is said once, not at every look.
type breach struct {
	rule   *runbooks.Rule
	detail string
	again  bool // one more look like this rolls back
}

func (w *watch) Do(ctx context.Context, env *phases.Env) error {
	start := env.Now()
	if !env.Since.IsZero() { // the days that it has been watched already count
		start = env.Since
	}
	open := map[int]breach{}
	looks := 0
	for {
		if err := w.look(ctx, env, env.Now().Sub(start), open); err != nil {
			return err
		}
		looks++
		left := w.conf.For - env.Now().Sub(start)
		if left <= 0 {
			break
		}
		env.Say(fmt.Sprintf("%d looks, %d breached, %s left", looks, len(open), left.Round(time.Second)))
		stop, err := pause(ctx, env, min(w.conf.Every, left))
		if err != nil {
			return err
		}
		if stop {
			env.Note(state.Note, "the operator ended the watch after "+env.Now().Sub(start).Round(time.Second).String())
			break
		}
	}
	env.Facts(map[string]any{"looks": looks, "breached": len(open)})
	for _, b := range open {
		if b.rule.Do != "warn" {
			env.Alerts = append(env.Alerts, env.Lane.Name+": "+b.rule.Check.Name+": "+b.detail)
		}
	}
	return nil
}

// pause waits for the next look; stop: the operator wants no more of them.
func pause(ctx context.Context, env *phases.Env, d time.Duration) (stop bool, err error) {
	select {
	case <-time.After(d):
		return false, nil
	case <-env.Stop:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// look asks every rule once. A rule rolls back when it is breached in two looks
// in a row: one lost packet is no reason.
func (w *watch) look(ctx context.Context, env *phases.Env, age time.Duration, open map[int]breach) error {
	for i, r := range w.conf.Rules {
		detail, err := breached(ctx, env, r.Check.For(env.Lane.Conf))
		if err != nil {
			return err
		}
		seen, was := open[i]
		switch {
		case detail == "" && was:
			delete(open, i)
			env.Note(state.Check, "cleared: "+r.Check.Name)
		case detail == "":
		case seen.again: // it was first seen in time
			return fmt.Errorf("%s: %s", r.Check.Name, detail)
		case !was:
			open[i] = breach{r, detail, w.rollsBack(r, age)}
			env.Note(state.Check, w.words(r, age)+": "+r.Check.Name+": "+detail)
		}
	}
	return nil
}

// rollsBack tells whether a rule still rolls back.
func (w *watch) rollsBack(r *runbooks.Rule, age time.Duration) bool {
	return r.Do == "rollback" && (w.conf.RollbackWithin == 0 || age <= w.conf.RollbackWithin)
}

// words say what a first breach means.
func (w *watch) words(r *runbooks.Rule, age time.Duration) string {
	switch {
	case w.rollsBack(r, age):
		return "breached, looking once more"
	case r.Do == "rollback":
		return "alert"
	}
	return r.Do
}

// breached says in what way a rule is breached, or "". A rule with a condition
// is breached when that holds; one without, when its subject is not well. What
// cannot be measured is breached: no data is never good news.
func breached(ctx context.Context, env *phases.Env, c *runbooks.Check) (string, error) {
	plain := *c
	plain.When = ""
	s, err := validate.Look(ctx, env, &plain, c.Timeout)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return err.Error(), nil
	case !s.OK:
		return cmp.Or(s.Detail, "it is not well, and does not say why"), nil
	case c.When == "":
		return "", nil
	}
	held, err := validate.Holds(c, s)
	if err != nil {
		return err.Error(), nil
	}
	if held {
		return cmp.Or(s.Detail, c.When), nil
	}
	return "", nil
}

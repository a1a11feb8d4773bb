// Package window waits until a maintenance window is open. A rollback never
// waits for one.
package window

import (
	"context"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
)

// Compile makes the one step.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	w, err := runbooks.ParseWindow(p.Window.Open)
	if err != nil {
		return nil, err
	}
	return []phases.Step{open{w: w, text: p.Window.Open, zone: zone(in)}}, nil
}

// zone is where times are shown: that of the first host that is switched.
func zone(in *phases.Inputs) *time.Location {
	for _, name := range in.Switched() {
		if h := in.Project.Hosts[name]; h != nil && h.Zone != "" {
			if z, err := time.LoadLocation(h.Zone); err == nil {
				return z
			}
		}
	}
	return time.UTC
}

type open struct {
	w    runbooks.Hours
	text string
	zone *time.Location
}

func (open) Name() string { return "open" }

const stamp = "Mon 2 Jan 15:04 MST"

func (o open) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	now := env.Now()
	if closes, ok := o.w.Open(now); ok {
		if closes.IsZero() {
			return phases.Change{Text: o.text}, nil
		}
		return phases.Change{Text: o.text + ": open until " + closes.In(o.zone).Format(stamp)}, nil
	}
	return phases.Change{Text: o.text + ": opens " + o.w.Next(now).In(o.zone).Format(stamp) + "; the run waits for it"}, nil
}

func (o open) Do(_ context.Context, env *phases.Env) error {
	now := env.Now()
	if _, ok := o.w.Open(now); ok {
		return nil
	}
	next := o.w.Next(now)
	return phases.Wait{Reason: "the window opens " + next.In(o.zone).Format(stamp), Until: next}
}

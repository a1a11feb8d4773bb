package phases

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// restoreOrder is the order in which the operations of a recipe run, whatever
// the order of the steps that they undo: first what runs now, so that a full
// boot partition cannot keep a service down; then the profile; and the boot
// default last, since a boot loader's default is chosen among the profile's
// generations. Data goes back while what uses it stands still and before what
// ran then starts; files after it, since they may lie in it. Equal ones run in
// the reverse order of their steps.
var restoreOrder = []string{
	agent.DoStopJob, agent.DoData, agent.DoWriteFile, agent.DoActivate, agent.DoStart, agent.DoUnits,
	agent.DoProfile, agent.DoTrial, agent.DoBoot, agent.DoReboot, agent.DoUnpin,
}

// rebootOrder is the order where the new system was booted: it may not let the
// old one be activated live, and a root that every boot renews loses its files.
// So the reboot comes as soon as it leads to the old system, the rest after it;
// the old system must not boot with the new one's data.
var rebootOrder = []string{
	agent.DoStopJob, agent.DoProfile, agent.DoTrial, agent.DoBoot, agent.DoData, agent.DoReboot,
	agent.DoWriteFile, agent.DoActivate, agent.DoStart, agent.DoUnits, agent.DoUnpin,
}

// Compose puts the undo of a new step into a recipe, unless it is in there: a
// step may be begun twice.
func Compose(recipe, undo []agent.Operation) []agent.Operation {
	all := slices.Clone(undo)
	for _, op := range recipe {
		if !slices.ContainsFunc(undo, func(u agent.Operation) bool { return reflect.DeepEqual(stored(u), stored(op)) }) {
			all = append(all, op)
		}
	}
	order := restoreOrder
	if (&Lane{Recipe: agent.Recipe{Operations: all}}).Reboots() {
		order = rebootOrder
	}
	slices.SortStableFunc(all, func(a, b agent.Operation) int {
		return slices.Index(order, a.Op) - slices.Index(order, b.Op)
	})
	return all
}

// arm makes the undo of the step that comes next durable on the host. Only then
// may the step have its effect.
func (l *Lane) arm(ctx context.Context, run string, undo []agent.Operation) error {
	r := l.Recipe
	r.Run, r.Host, r.Before = run, l.Name, l.Current()
	if r.Written = time.Now().UTC(); !r.Written.After(l.Recipe.Written) { // by another machine, whose clock is ahead
		r.Written = l.Recipe.Written.Add(1)
	}
	r.Operations = Compose(l.Recipe.Operations, undo)
	if err := l.Call(ctx, agent.OpRecipePut, r, nil); err != nil {
		return err
	}
	l.Recipe = r
	return nil
}

// stored is an operation as a host keeps it: contents are beside it.
func stored(op agent.Operation) agent.Operation {
	op.Content = nil
	return op
}

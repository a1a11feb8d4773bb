package phases

import (
	"context"
	"sync"

	"github.com/hbohlen/deployer/phases/agent"
)

// Examined is what was seen of one host without a change to it.
type Examined struct {
	*Lane
	Err      error     // why it could not be reached
	Agent    bool      // this version's agent is on the host already
	AgentErr error     // it could have been there, but did not answer
	Findings []Finding // what the steps of the run would trip over
	Cramped  []Finding // file systems that a run could fill
	Notes    []string  // what else matters of them
}

// Examine looks at all lanes side by side.
func (r *Run) Examine(ctx context.Context) []Examined {
	r.log = &Log{}
	list := make([]Examined, len(r.Lanes))
	var wg sync.WaitGroup
	for i, l := range r.Lanes {
		list[i].Lane = l
		wg.Go(func() { r.examine(ctx, &list[i]) })
	}
	wg.Wait()
	return list
}

func (r *Run) examine(ctx context.Context, x *Examined) {
	if x.Err = r.Reach(ctx, x.Lane); x.Err != nil {
		return
	}
	if x.Seen.Launcher {
		x.Agent, x.AgentErr = x.ask(ctx)
	}
	x.Findings = r.Unready(ctx, x.Name)
	if x.Agent {
		x.Cramped, x.Notes, _ = r.Room(ctx, x.Lane, nil) // what it cannot see, a run says
	}
}

// Unready is what the steps of one host would trip over; "" of the controller.
func (r *Run) Unready(ctx context.Context, host string) (found []Finding) {
	for _, phase := range r.Phases {
		for _, s := range phase.Steps {
			if HostOf(s) == host {
				found = append(found, r.requires(ctx, phase, s)...)
			}
		}
	}
	return found
}

// ask lets the agent look, if it is there: it sees what only root does.
func (l *Lane) ask(ctx context.Context) (there bool, err error) {
	digest, _, err := l.agents.For(l.Seen.Arch)
	if err != nil {
		return false, err
	}
	l.client, err = l.start(ctx, digest)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var now agent.Facts
	err = l.Call(ctx, agent.OpFacts, agent.FactsArgs{Brief: true}, &now)
	l.Seen.Boot, l.Seen.OpenRun, l.Seen.Holder, l.Seen.SwitchLocked = now.Boot, now.OpenRun, now.Holder, now.SwitchLocked
	return err == nil, err
}

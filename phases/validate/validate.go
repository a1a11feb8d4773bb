// Package validate judges a host over a new connection, and only then commits:
// profile and boot default are the last steps of the phase, each read back.
//
// Judgement needs a new connection because a broken sshd or firewall keeps old
// sessions working. Every check has a deadline; no data and NaN never pass.
package validate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// Compile judges and commits every host that the runbook switches.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	var steps []phases.Step
	for _, host := range in.Switched() {
		steps = append(steps, Steps(host, p.Validate.Checks)...)
	}
	return steps, nil
}

// Steps is the judgement of one host and its commit. Staging goes the same way.
func Steps(host string, checks []*runbooks.Check) []phases.Step {
	steps := Checks(host, []phases.Step{contact{phases.On{Lane: host}}}, checks)
	return append(steps,
		profile{phases.On{Lane: host, Kind: phases.Probe}},
		boot{phases.On{Lane: host, Kind: phases.Probe}},
		confirm{phases.On{Lane: host, Kind: phases.Idempotent}},
	)
}

// Checks adds a step for each check to the others of a host in the same phase.
// One that is asked again is numbered: a step's key is its own.
func Checks(host string, steps []phases.Step, checks []*runbooks.Check) []phases.Step {
	for _, c := range checks {
		if c.Kind == "reboot" { // made before the commit, by a step of the switch
			continue
		}
		own := *c
		for n := 2; slices.ContainsFunc(steps, func(s phases.Step) bool { return s.Name() == own.Name && phases.HostOf(s) == host }); n++ {
			own.Name = fmt.Sprintf("%s-%d", c.Name, n)
		}
		steps = append(steps, NewCheck(host, &own))
	}
	return steps
}

// contact reaches the host over a new connection and a new login.
type contact struct{ phases.On }

// contactWithin is the time that a host has to be reachable again.
const contactWithin = 20 * time.Second

func (contact) Name() string { return "contact" }

func (contact) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "a new connection and login, within " + contactWithin.String()}, nil
}

func (contact) Do(ctx context.Context, env *phases.Env) error {
	limited, cancel := context.WithTimeout(ctx, contactWithin)
	defer cancel()
	env.Lane.Forget() // one from before the activation proves nothing
	var j *phases.Lane
	var err error
	for {
		l, e := env.Lane.Judge(limited)
		if err == nil || limited.Err() == nil { // what the end of the time broke says nothing
			j, err = l, e
		}
		if err == nil || !phases.Passing(err) {
			break
		}
		select {
		case <-limited.Done():
			return err
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return err
	}
	var now agent.Facts
	if err := j.Call(limited, agent.OpFacts, agent.FactsArgs{Brief: true}, &now); err != nil {
		return err
	}
	env.Facts(map[string]string{"system": now.System, "boot_id": now.BootID})
	if now.System != env.Lane.To.Out {
		return fmt.Errorf("the host runs %s, want %s", phases.ShortPath(now.System), phases.ShortPath(env.Lane.To.Out))
	}
	return nil
}

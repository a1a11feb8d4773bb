package phases

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/runbooks"
)

// Kind turns one section of a runbook into steps.
type Kind struct {
	Name    string
	Compile func(in *Inputs, phase *runbooks.Phase) ([]Step, error)
}

// Inputs is what kinds compile from: the two files, and nothing observed.
type Inputs struct {
	Project *runbooks.Project
	Runbook *runbooks.Runbook
}

// Validation is the runbook's validate section, which staging and production
// share; empty where there is none.
func (in *Inputs) Validation() *runbooks.Validate {
	for _, p := range in.Runbook.Phases {
		if p.Validate != nil {
			return p.Validate
		}
	}
	return &runbooks.Validate{}
}

// Switched lists the hosts of the runbook's switch phases, in order.
func (in *Inputs) Switched() []string {
	var hosts []string
	for _, p := range in.Runbook.Phases {
		if p.Switch != nil {
			hosts = append(hosts, p.Switch.Host)
		}
	}
	return hosts
}

// SwitchOf is how a host is switched: what its own switch says, else what the
// first one does, since staging goes the same way.
func (in *Inputs) SwitchOf(host string) (sw runbooks.Switch) {
	for _, p := range in.Runbook.Phases {
		if p.Switch != nil && (sw.Host == "" || p.Switch.Host == host) {
			sw = *p.Switch
		}
	}
	sw.ConfirmWithin, sw.Reboot = cmp.Or(sw.ConfirmWithin, 3*time.Minute), cmp.Or(sw.Reboot, "ask")
	return sw
}

// SurvivesReboot is the check that a host survives a reboot, nil where none is asked for.
func (in *Inputs) SurvivesReboot(host string) *runbooks.Check {
	checks := in.Validation().Checks
	for _, p := range in.Runbook.Phases {
		if p.Staging != nil && p.Staging.Host == host {
			checks = append(slices.Clone(p.Staging.Checks), checks...)
		}
	}
	for _, c := range checks {
		if c.Kind == "reboot" {
			return c
		}
	}
	return nil
}

// Compiled is a phase with its steps.
type Compiled struct {
	Name, Kind string
	Steps      []Step
}

// Compile turns a runbook into steps, by the table of kinds.
func Compile(kinds []Kind, in *Inputs) ([]Compiled, error) {
	var out []Compiled
	for _, phase := range in.Runbook.Phases {
		kind, ok := find(kinds, phase.Kind)
		if !ok {
			return nil, fmt.Errorf("%s:%d:%d: phase %q is not built in this version", phase.Pos.File, phase.Pos.Line, phase.Pos.Col, phase.Kind)
		}
		steps, err := kind.Compile(in, phase)
		if err == nil {
			err = distinct(phase.Name, steps)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d:%d: %w", phase.Pos.File, phase.Pos.Line, phase.Pos.Col, err)
		}
		out = append(out, Compiled{Name: phase.Name, Kind: phase.Kind, Steps: steps})
	}
	return out, nil
}

// distinct refuses two steps under one key: the journal could not tell them apart.
func distinct(phase string, steps []Step) error {
	seen := map[string]bool{}
	for _, s := range steps {
		if seen[Key(phase, s)] {
			return fmt.Errorf("two steps are named %s: give the check another name", Key(phase, s))
		}
		seen[Key(phase, s)] = true
	}
	return nil
}

func find(kinds []Kind, name string) (Kind, bool) {
	for _, k := range kinds {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// Key names a step in the plan, the journal and on the command line:
// phase/step@host.
func Key(phase string, s Step) string {
	if host := HostOf(s); host != "" {
		return phase + "/" + s.Name() + "@" + host
	}
	return phase + "/" + s.Name()
}

// HostOf is the lane of a step, "" for the controller.
func HostOf(s Step) string {
	if h, ok := s.(Hoster); ok {
		return h.Host()
	}
	return ""
}

// ClassOf is the class of a step.
func ClassOf(s Step) Class {
	if c, ok := s.(Classer); ok {
		return c.Class()
	}
	return Read
}

// Lanes lists the hosts that steps belong to, in order of first use.
func Lanes(phases []Compiled) []string {
	var hosts []string
	seen := map[string]bool{}
	for _, p := range phases {
		for _, s := range p.Steps {
			if h := HostOf(s); h != "" && !seen[h] {
				seen[h] = true
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

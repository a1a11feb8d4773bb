package phases

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
)

// Plan is the compiled list of steps with what was observed, what will be, and
// the undo of each. Humans, JSON and Markdown read the same struct.
type Plan struct {
	Schema      int               `json:"schema"`
	Runbook     string            `json:"runbook"`
	RunbookHash string            `json:"runbook_sha256"`
	Description string            `json:"description,omitempty"`
	Flake       string            `json:"flake"`
	Revision    string            `json:"revision,omitempty"`
	Vars        map[string]string `json:"vars,omitempty"`
	Changed     map[string]string `json:"changed_vars,omitempty"` // those that differ from the file: what the file says
	Hosts       []PlanHost        `json:"hosts"`
	Phases      []PlanPhase       `json:"phases"`
	Nothing     bool              `json:"nothing_to_do"`
	Digest      string            `json:"digest"`
}

// PlanHost is one lane: from, to, and what of it the plan does not cover.
type PlanHost struct {
	Name      string       `json:"name"`
	Address   string       `json:"address"`
	User      string       `json:"user"`
	System    string       `json:"system"` // nixosConfigurations.<system>
	From      agent.Facts  `json:"from"`
	To        string       `json:"to"`
	Diff      *nix.Diff    `json:"diff,omitempty"`
	Units     nix.UnitDiff `json:"units"`
	Reboot    string       `json:"reboot_pending,omitempty"` // why a reboot would be pending afterwards
	Notes     []string     `json:"notes,omitempty"`          // what is not covered
	Unchanged bool         `json:"unchanged"`
}

// PlanPhase is one phase of the runbook.
type PlanPhase struct {
	Name  string     `json:"name"`
	Kind  string     `json:"kind"`
	Steps []PlanStep `json:"steps"`
}

// PlanStep is one step.
type PlanStep struct {
	Key     string            `json:"key"`
	Name    string            `json:"name"`
	Host    string            `json:"host,omitempty"`
	Class   Class             `json:"class"`
	Text    string            `json:"text"`
	Detail  []string          `json:"detail,omitempty"`
	Nothing bool              `json:"nothing,omitempty"`
	Unknown bool              `json:"unknown_until_run,omitempty"`
	Undo    []agent.Operation `json:"undo,omitempty"`
}

// Seal computes the plan's digest over everything but observation times.
func (p *Plan) Seal() {
	c := *p
	c.Digest = ""
	c.Hosts = append([]PlanHost(nil), p.Hosts...)
	for i := range c.Hosts {
		c.Hosts[i].From = stable(c.Hosts[i].From)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic("internal error: plan does not encode: " + err.Error())
	}
	sum := sha256.Sum256(b)
	p.Digest = hex.EncodeToString(sum[:])
}

// stable drops from facts what changes by itself.
func stable(f agent.Facts) agent.Facts {
	f.Space, f.Active, f.Holder, f.SwitchLocked, f.Foreign = nil, nil, nil, false, nil
	f.Time = f.Time.Truncate(0)
	f.Time = zeroTime
	return f
}

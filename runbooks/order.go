package runbooks

import (
	"slices"
	"time"
)

// changes is the host that a phase switches, or empty.
func (ph *Phase) changes() string {
	switch {
	case ph.Staging != nil:
		return ph.Staging.Host
	case ph.Switch != nil:
		return ph.Switch.Host
	}
	return ""
}

// switched are the hosts that a runbook changes, in its order.
func (rb *Runbook) switched() []string {
	var hosts []string
	for _, ph := range rb.Phases {
		if host := ph.changes(); host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// order is what has happened before a phase.
type order struct {
	*source
	built     []string
	changed   map[string]*Phase
	pending   []*Phase // switched, not yet validated
	validated bool
}

// order refuses phases in an order that cannot work.
func (s *source) order(rb *Runbook) {
	o := &order{source: s, changed: map[string]*Phase{}}
	hosts := rb.switched()
	for _, ph := range rb.Phases {
		if ph.Build != nil && len(ph.Build.Hosts) == 0 {
			ph.Build.Hosts = slices.Clone(hosts)
		}
		if ph.Kind == "window" && len(o.changed) == len(hosts) {
			s.wrong(ph.Pos, "move it before `switch`", "nothing is switched after this window")
		}
		o.phase(ph)
	}
	for _, ph := range o.pending {
		s.wrong(ph.Pos, "add a `validate` after it", "`%s` is never validated, so nothing would be committed", ph.Name)
	}
}

func (o *order) phase(ph *Phase) {
	o.reboots(ph)
	switch {
	case ph.Build != nil:
		o.built = append(o.built, ph.Build.Hosts...)
	case ph.Backup != nil && len(o.changed) > 0:
		o.wrong(ph.Pos, "", "`%s` comes after the first switch: it would copy what was changed already", ph.Name)
	case ph.Kind == "staging" || ph.Kind == "switch":
		o.change(ph, ph.changes())
	case ph.Validate != nil:
		o.validate(ph)
	case ph.Monitor != nil && !o.validated:
		o.wrong(ph.Pos, "", "`%s` comes before `validate`", ph.Name)
	}
}

func (o *order) change(ph *Phase, host string) {
	o.pending = append(o.pending, ph)
	if host != "" && !slices.Contains(o.built, host) {
		o.wrong(ph.Pos, "add a `build` before it", "`%s` changes `%s`, which no `build` before it builds", ph.Name, host)
	}
	if first := o.changed[host]; host != "" && first != nil {
		o.wrong(ph.Pos, "", "`%s` changes `%s`, which `%s` at %d:%d changes already", ph.Name, host, first.Name, first.Pos.Line, first.Pos.Col)
	} else if host != "" {
		o.changed[host] = ph
	}
}

// reboots refuses a reboot where none can be undone.
func (o *order) reboots(ph *Phase) {
	var checks []*Check
	if ph.Gate != nil {
		for _, i := range ph.Gate.Items {
			checks = append(checks, i.Check)
		}
	}
	if ph.Monitor != nil {
		for _, r := range ph.Monitor.Rules {
			checks = append(checks, r.Check)
		}
	}
	for _, c := range checks {
		if c != nil && c.Kind == "reboot" {
			o.wrong(c.Pos, "move it to `staging` or `validate`", "`%s` reboots the host: `%s` cannot", c.Name, ph.Name)
		}
	}
}

func (o *order) validate(ph *Phase) {
	o.validated = true
	if len(o.pending) == 0 {
		o.wrong(ph.Pos, "", "`%s` comes before anything was switched", ph.Name)
	}
	need := time.Duration(0)
	for _, c := range ph.Validate.Checks {
		if c.Kind != "reboot" { // the time counts from the boot
			need += c.Within
		}
	}
	for _, changed := range o.pending {
		if sw := changed.Switch; sw != nil && need > sw.ConfirmWithin {
			o.wrong(o.nodes[sw].at("confirm_within"), "raise it, or lower `within` of the checks",
				"the checks of `%s` may take %s, longer than `confirm_within` (%s) of `%s`", ph.Name, brief(need), brief(sw.ConfirmWithin), changed.Name)
		}
	}
	o.pending = nil
}

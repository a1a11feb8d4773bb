package runbooks

import (
	"slices"
	"time"
)

// order refuses phases in an order that cannot work.
func (s *source) order(rb *Runbook) {
	fillBuild(rb)
	o := &order{s: s, changed: map[string]*Phase{}}
	for i, ph := range rb.Phases {
		o.phase(ph)
		if ph.Kind == "window" && i > lastSwitch(rb) {
			s.wrong(ph.Pos, "move it before `switch`", "nothing is switched after this window")
		}
	}
	for _, ph := range o.pending {
		s.wrong(ph.Pos, "add a `validate` after it", "`%s` is never validated, so nothing would be committed", ph.Name)
	}
}

// fillBuild makes a build without hosts build those that are changed.
func fillBuild(rb *Runbook) {
	var hosts []string
	for _, ph := range rb.Phases {
		if host := ph.changes(); host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	for _, ph := range rb.Phases {
		if ph.Build != nil && len(ph.Build.Hosts) == 0 {
			ph.Build.Hosts = slices.Clone(hosts)
		}
	}
}

func lastSwitch(rb *Runbook) int {
	last := -1
	for i, ph := range rb.Phases {
		if ph.changes() != "" {
			last = i
		}
	}
	return last
}

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

// order is what has happened before a phase.
type order struct {
	s         *source
	building  bool
	built     []string
	changed   map[string]*Phase
	pending   []*Phase // switched, not yet validated
	validated bool
}

func (o *order) phase(ph *Phase) {
	switch ph.Kind {
	case "build":
		o.building = true
		o.built = append(o.built, ph.Build.Hosts...)
	case "backup":
		if len(o.changed) > 0 {
			o.s.wrong(ph.Pos, "", "`%s` comes after the first switch: it would copy what was changed already", ph.Name)
		}
	case "staging", "switch":
		o.change(ph)
	case "validate":
		o.validate(ph)
	case "monitor":
		if !o.validated {
			o.s.wrong(ph.Pos, "", "`%s` comes before `validate`", ph.Name)
		}
	}
}

func (o *order) change(ph *Phase) {
	host := ph.changes()
	o.pending = append(o.pending, ph)
	if host == "" {
		return // said already
	}
	switch {
	case !o.building:
		o.s.wrong(ph.Pos, "add a `build` before it", "`%s` has no `build` before it", ph.Name)
	case !slices.Contains(o.built, host):
		o.s.wrong(ph.Pos, "", "`%s` changes `%s`, which no `build` before it builds", ph.Name, host)
	}
	if first := o.changed[host]; first != nil {
		o.s.wrong(ph.Pos, "", "`%s` changes `%s`, which `%s` at %d:%d changes already", ph.Name, host, first.Name, first.Pos.Line, first.Pos.Col)
		return
	}
	o.changed[host] = ph
}

func (o *order) validate(ph *Phase) {
	o.validated = true
	if len(o.pending) == 0 {
		o.s.wrong(ph.Pos, "", "`%s` comes before anything was switched", ph.Name)
	}
	need := time.Duration(0)
	for _, c := range ph.Validate.Checks {
		need += c.Within
	}
	for _, changed := range o.pending {
		sw := changed.Switch
		if sw == nil || need <= sw.ConfirmWithin {
			continue
		}
		o.s.wrong(o.s.where(sw, "confirm_within"), "raise it, or lower `within` of the checks",
			"the checks of `%s` may take %s, longer than `confirm_within` (%s) of `%s`", ph.Name, brief(need), brief(sw.ConfirmWithin), changed.Name)
	}
	o.pending = nil
}

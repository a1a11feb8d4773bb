package runbooks

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

// This file says what the sections of deployer.yaml mean beyond their keys.

const version = 1

func (s *source) checkVersion(owner any, v int) {
	if s.sound(owner, "version") && v != version {
		s.wrong(s.where(owner, "version"), "", "version %d is not known; this deployer knows version %d", v, version)
	}
}

func (p *Project) finish(s *source, _ *node) {
	s.checkVersion(p, p.Version)
	if s.has(p, "hosts") && len(p.Hosts) == 0 {
		s.wrong(s.where(p, "hosts"), "", "`hosts` names no host")
	}
	if p.Flake == "" {
		p.Flake = "."
	}
	p.sameMachine(s)
}

// sameMachine refuses two hosts at one address: they would be two lanes that
// change one machine.
func (p *Project) sameMachine(s *source) {
	seen := map[string]*Host{}
	for _, h := range byLine(p.Hosts) {
		at := h.Address + " " + strconv.Itoa(h.Port)
		if first := seen[at]; first != nil && h.Address != "" {
			s.wrong(s.where(h, "address"), "", "`%s` is the machine of `%s` at %d:%d", h.Name, first.Name, first.Pos.Line, first.Pos.Col)
			continue
		}
		seen[at] = h
	}
}

func (h *Host) finish(s *source, _ *node) {
	if h.Build == "" {
		h.Build = "controller"
	}
	if h.Address == "local" {
		for _, key := range []string{"user", "port", "key"} {
			if s.has(h, key) {
				s.wrong(s.where(h, key), "", "`%s` means nothing with `address: local`", key)
			}
		}
	}
	if s.sound(h, "port") && (h.Port < 1 || h.Port > 65535) {
		s.wrong(s.where(h, "port"), "", "`port` must lie between 1 and 65535, not %d", h.Port)
	}
	if s.has(h, "port") && h.Address != h.hostname() {
		s.wrong(s.where(h, "port"), "", "`address` already has a port")
	}
}

func (v *Subvolume) fromText(s *source, n *node) {
	v.OnRollback = n.text
	s.form(n, "on_rollback", rule{one: []string{"keep", "restore", "ask"}})
}

func (v *Subvolume) finish(s *source, _ *node) {
	if v.OnRollback == "" {
		v.OnRollback = "keep"
	}
	if v.OnRollback == "keep" && len(v.Pause) > 0 {
		s.wrong(s.where(v, "pause"), "", "`pause` means nothing with `on_rollback: keep`: nothing goes back")
	}
}

func (k *Keep) finish(s *source, _ *node) {
	for key, n := range map[string]int{"good_runs": k.GoodRuns, "failed_days": k.FailedDays} {
		if s.sound(k, key) && n < 1 {
			s.wrong(s.where(k, key), "", "`%s` must be at least 1, not %d", key, n)
		}
	}
}

func (m *Metric) finish(s *source, n *node) {
	switch {
	case !s.has(m, "scrape") && !s.has(m, "prometheus"):
		s.wrong(n.pos, "", "a metric needs `scrape` or `prometheus`")
	case s.has(m, "scrape") && s.has(m, "prometheus"):
		s.wrong(s.where(m, "prometheus"), "", "a metric has one source; `scrape` and `prometheus` contradict")
	case s.has(m, "prometheus") && !s.has(m, "query"):
		s.wrong(n.pos, "", "a metric from `prometheus` needs `query`")
	case s.has(m, "scrape") && s.has(m, "query"):
		s.wrong(s.where(m, "query"), "", "`query` means nothing with `scrape`")
	}
}

func (t *Notify) finish(s *source, n *node) {
	need, bad := map[string]string{"webhook": "url", "file": "path"}[t.Kind], ""
	switch t.Kind {
	case "webhook":
		bad = "path"
	case "file":
		bad = "url"
	}
	if need != "" && !s.has(t, need) {
		s.wrong(n.pos, "", "a `%s` needs `%s`", t.Kind, need)
	}
	if bad != "" && s.has(t, bad) {
		s.wrong(s.where(t, bad), "", "`%s` means nothing with `kind: %s`", bad, t.Kind)
	}
	t.literals(s)
}

// literals refuses a secret that stands in the file, and shows no line of it.
func (t *Notify) literals(s *source) {
	if t.Sign != nil && t.Sign.Value != "" {
		s.wrongSecret(t.Sign.Pos, "write {env: NAME}, {file: PATH} or {command: …}", "`sign` is a secret and must not stand here")
		t.Sign.Value = ""
	}
	if t.URL == nil || t.URL.Value == "" {
		return
	}
	if why, hint := webAddress(t.URL.Value); why != "" {
		s.wrongSecret(t.URL.Pos, hint, "`url` %s", why)
	}
}

func (v *Secret) fromText(_ *source, n *node) { v.Value = n.text }

func (v *Secret) finish(s *source, n *node) {
	set := 0
	for _, source := range []string{v.Env, v.File, v.Command} {
		if source != "" {
			set++
		}
	}
	if set != 1 {
		s.wrong(n.pos, "", "a secret comes from one of `env`, `file` and `command`")
	}
}

// byLine are a map's hosts in the order of the file.
func byLine(hosts map[string]*Host) []*Host {
	return slices.SortedFunc(maps.Values(hosts), func(a, b *Host) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
}

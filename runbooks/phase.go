package runbooks

import (
	"fmt"
	"slices"
	"strings"
)

// This file says what sections mean beyond the tags of their keys.

// spread brings `- kind`, and `- kind: name` with the section's keys beside it,
// into the form `- kind: {…}`.
func (ph *Phase) spread(s *source, n *node) *node {
	if n.shape == text {
		n = &node{shape: section, pos: n.pos, bad: n.bad, pairs: []pair{{n, &node{pos: n.pos}}}}
	}
	kinds := keysOf(fields(phaseType), "")
	i := slices.IndexFunc(n.pairs, func(p pair) bool { return slices.Contains(kinds, p.key.text) })
	if i < 0 {
		return n
	}
	kind := n.pairs[i]
	ph.Name = kind.key.text
	switch kind.value.shape {
	case list, section:
		return n
	case text:
		ph.Name = kind.value.text
		s.look(kind.value, kind.key.text, "name")
	}
	body := &node{shape: section, pos: n.pos, pairs: slices.Concat(n.pairs[:i], n.pairs[i+1:])}
	return &node{shape: section, pos: n.pos, pairs: []pair{{kind.key, body}}}
}

// finish makes the phases' names unique.
func (rb *Runbook) finish(*source, *node) {
	names := map[string]bool{}
	for _, ph := range rb.Phases {
		base := ph.Name
		for i := 2; names[ph.Name]; i++ {
			ph.Name = fmt.Sprintf("%s-%d", base, i)
		}
		names[ph.Name] = true
	}
}

func (h *Host) finish(s *source, n *node) {
	if n.get("port") != nil && h.Address != "local" && h.Address != h.hostname() {
		s.wrong(n.at("port"), "", "`address` already has a port")
	}
}

func (t *Notify) finish(s *source, n *node) {
	if need := map[string]string{"webhook": "url", "file": "path"}[t.Kind]; need != "" && n.get(need) == nil {
		s.wrong(n.pos, "", "a `%s` needs `%s`", t.Kind, need)
	}
	if t.Sign != nil && t.Sign.Value != "" {
		s.wrong(t.Sign.Pos, "write {env: NAME}, {file: PATH} or {command: …}", "`sign` is a secret and must not stand here")
	}
	if t.URL != nil && t.URL.Value != "" {
		if why, hint := forms["url"](t.URL.Value); why != "" {
			s.wrong(t.URL.Pos, hint, "`url` %s", why)
		}
	}
}

// Optional splits `flake.lock?` into the path and whether it may be missing.
func Optional(file string) (path string, optional bool) { return strings.CutSuffix(file, "?") }

func (b *Backup) finish(s *source, n *node) {
	if len(b.Files) == 0 && len(b.Host) == 0 {
		s.wrong(n.pos, "", "`backup` needs `files` or `host`")
	}
}

// finish turns the condition of a check that is used by its name around.
func (r *Rule) finish(s *source, n *node) {
	r.Check.finish(s, n)
	if r.Check.Use != "" && r.Check.Kind == "check" {
		s.refs[len(s.refs)-1].opposite = true
	}
}

// finish makes the rules' checks end before they are made again.
func (m *Monitor) finish(s *source, _ *node) {
	for _, r := range m.Rules {
		c := r.Check
		if c == nil || c.Within <= m.Every {
			continue
		}
		if n := s.nodes[r]; n.get("within") != nil {
			s.wrong(n.at("within"), "", "`within` (%s) is longer than the monitor's `every` (%s)", brief(c.Within), brief(m.Every))
		}
		c.Within, c.Interval, c.Timeout = m.Every, min(c.Interval, m.Every), min(c.Timeout, m.Every)
	}
}

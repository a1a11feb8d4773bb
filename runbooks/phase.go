package runbooks

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// This file says what the sections of a runbook mean beyond their keys.

func (rb *Runbook) finish(s *source, _ *node) {
	s.checkVersion(rb, rb.Version)
	if s.has(rb, "phases") && len(rb.Phases) == 0 {
		s.wrong(s.where(rb, "phases"), "", "`phases` is empty")
	}
	names := map[string]bool{}
	for _, ph := range rb.Phases {
		base := ph.Name
		for i := 2; names[ph.Name]; i++ {
			ph.Name = fmt.Sprintf("%s-%d", base, i)
		}
		names[ph.Name] = true
	}
}

// fromNode reads `- kind: {…}`, `- kind: name` with the section's keys beside
// it, and `- kind` alone.
func (ph *Phase) fromNode(s *source, n *node) {
	if n.shape == text {
		n = &node{shape: section, pos: n.pos, pairs: []pair{{n, &node{pos: n.pos}}}}
	}
	if n.shape != section {
		s.wrong(n.pos, "write `- switch: {…}`", "a phase must be a section, not %s", n.shape)
		return
	}
	all := fields(reflect.TypeFor[Phase]())
	i, at := ph.kind(s, n, all)
	if i < 0 {
		return
	}
	ph.Kind = all[i].key
	ph.Name = ph.Kind
	s.decode(ph.body(s, n, at), reflect.ValueOf(ph).Elem().FieldByIndex(all[i].index), ph.Kind, rule{})
}

// kind finds the one key that names a kind: its field, and its place in n.
func (ph *Phase) kind(s *source, n *node, all []field) (index, at int) {
	index = -1
	for i, p := range n.pairs {
		f := slices.IndexFunc(all, func(f field) bool { return f.key == p.key.text })
		switch {
		case f >= 0 && index >= 0:
			s.wrong(p.key.pos, "begin another entry with `- "+p.key.text+":`", "a phase is of one kind; `%s` and `%s` are two", all[index].key, p.key.text)
			return -1, 0
		case f >= 0:
			index, at = f, i
		}
	}
	if index < 0 && len(n.pairs) > 0 {
		first := n.pairs[0].key
		hint := cmp.Or(meant(first.text, keysOf(all)), "there is "+either(keysOf(all)))
		s.wrong(first.pos, hint, "no kind of phase `%s`", first.text)
	} else if index < 0 {
		s.wrong(n.pos, "", "the phase is empty")
	}
	return index, at
}

// body is the section of the kind: what stands under its key, or beside it.
func (ph *Phase) body(s *source, n *node, at int) *node {
	kind := n.pairs[at]
	others := slices.Concat(n.pairs[:at], n.pairs[at+1:])
	if kind.value.shape == text || kind.value.shape == nothing {
		if kind.value.shape == text {
			ph.Name = kind.value.text
			s.form(kind.value, ph.Kind, rule{form: "name"})
		}
		return &node{shape: section, pos: n.pos, pairs: others}
	}
	if len(others) > 0 {
		s.wrong(others[0].key.pos, "move it under `"+ph.Kind+"`", "`%s` stands beside `%s`, which has a section of its own", others[0].key.text, ph.Kind)
	}
	return kind.value
}

func (u *Unbuilt) fromNode(*source, *node) {}

func (i *Item) finish(s *source, n *node) {
	switch {
	case i.Check == nil && i.Sign == "":
		s.wrong(n.pos, "", "an item needs `check` or `sign`")
	case i.Check != nil && i.Sign != "":
		s.wrong(s.where(i, "sign"), "make two items of it", "an item is checked or signed, not both")
	case i.Sign != "" && i.Text == "":
		s.wrong(n.pos, "", "an item to sign needs `text`")
	}
}

func (g *Gate) finish(s *source, _ *node) {
	if s.has(g, "items") && len(g.Items) == 0 {
		s.wrong(s.where(g, "items"), "", "`items` is empty")
	}
}

// Optional splits `flake.lock?` into the path and whether it may be missing.
func Optional(file string) (path string, optional bool) { return strings.CutSuffix(file, "?") }

func (b *Backup) finish(s *source, n *node) {
	if len(b.Files) == 0 && len(b.Host) == 0 {
		s.wrong(n.pos, "", "`backup` needs `files` or `host`")
	}
}

func (w *Window) finish(s *source, _ *node) {
	if w.Open == "" {
		return
	}
	var err error
	if w.Hours, err = ParseWindow(w.Open); err != nil {
		s.wrong(s.where(w, "open"), "like `always`, `sat 02:00-04:00 UTC` or `mon-fri 22:00-02:00 Europe/Berlin`", "`%s` %v", w.Open, err)
	}
	for _, key := range []string{"reserve", "announce"} {
		if w.Open == "always" && s.sound(w, key) {
			s.wrong(s.where(w, key), "", "`%s` means nothing with `open: always`", key)
		}
	}
}

func (sw *Switch) finish(*source, *node) {
	sw.ConfirmWithin = cmp.Or(sw.ConfirmWithin, 3*time.Minute)
	sw.Reboot = cmp.Or(sw.Reboot, "ask")
}

func (m *Monitor) finish(s *source, _ *node) {
	if m.For == 0 {
		return
	}
	for key, d := range map[string]time.Duration{"every": m.Every, "rollback_within": m.RollbackWithin} {
		if d > m.For {
			s.wrong(s.where(m, key), "", "`%s` (%s) is longer than `for` (%s)", key, brief(d), brief(m.For))
		}
	}
	m.Every = cmp.Or(m.Every, min(time.Minute, m.For))
	m.RollbackWithin = cmp.Or(m.RollbackWithin, min(time.Hour, m.For))
	for _, r := range m.Rules {
		r.fit(s, m.Every)
	}
}

// fit makes a rule's check end before it is made again.
func (r *Rule) fit(s *source, every time.Duration) {
	c := r.Check
	if c == nil || c.Kind == "" || c.Within <= every {
		return
	}
	if s.has(c, "within") {
		s.wrong(s.where(c, "within"), "", "`within` (%s) is longer than the monitor's `every` (%s)", brief(c.Within), brief(every))
		return
	}
	c.Within, c.Interval, c.Timeout = every, min(c.Interval, every), min(c.Timeout, every)
}

func (r *Rule) fromText(s *source, n *node) {
	r.Do = "alert"
	r.byName(s, n)
}

func (r *Rule) byName(s *source, n *node) {
	r.Check = &Check{Pos: n.pos}
	r.Check.fromText(s, n)
	s.refs[len(s.refs)-1].opposite = true
}

func (r *Rule) finish(s *source, n *node) {
	r.Do = cmp.Or(r.Do, "alert")
	if s.has(r, "check") {
		if r.Check != nil {
			s.wrong(s.where(r, "check"), "", "a rule has one check; a name and an inline check are two")
			return
		}
		r.byName(s, &node{shape: text, text: r.Named, pos: s.where(r, "check")})
		return
	}
	if r.Check == nil {
		r.Check = &Check{}
	}
	r.Check.Pos = n.pos
	s.at[place{r.Check, ""}] = n.pos
	r.Check.finish(s, n)
	r.Metric = r.Check.Metric
	if r.Metric != "" && r.Check.When == "" {
		s.wrong(n.pos, "like `when: \"value != 1\"`", "a rule over a metric needs `when`")
	}
}

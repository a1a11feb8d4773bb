package runbooks

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	variable = regexp.MustCompile(`\$?\$\{[^}]*\}`)
	ofHost   = []string{"host", "host.name", "host.address", "host.system"}
)

// vars is what `${name}` stands for. It is filled in on the tree, before the
// text means anything, so that a value can change no structure and every
// position stays true.
type vars struct {
	src     *source
	values  map[string]string
	used    map[string]bool
	broken  map[string]bool // their values are mistakes
	changed map[string]string
}

// readVars reads the section `vars` in its order, so that a later variable may
// refer to an earlier one, and puts what was given instead.
func (s *source) readVars(root *node, given map[string]string) *vars {
	v := &vars{src: s, values: map[string]string{}, used: map[string]bool{}, broken: map[string]bool{}, changed: map[string]string{}}
	section := root.get("vars")
	if section != nil {
		for _, p := range section.pairs {
			v.add(p, given)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := v.values[name]; !ok {
			s.wrong(Pos{File: "--var " + name}, meant(name, v.names()), "%s has no variable `%s`", s.file, name)
		}
	}
	return v
}

func (v *vars) names() []string { return slices.Sorted(maps.Keys(v.values)) }

func (v *vars) add(p pair, given map[string]string) {
	name := p.key.text
	if why, hint := forms["name"](name); why != "" || slices.Contains(ofHost, name) {
		v.src.wrong(p.key.pos, hint, "`%s` cannot name a variable", name)
	}
	v.fill(p.value)
	v.values[name] = p.value.text
	v.broken[name] = p.value.shape != text || p.value.bad
	if value, ok := given[name]; ok && value != p.value.text {
		v.changed[name], v.values[name] = p.value.text, value
		p.value.text, p.value.shape, v.broken[name] = value, text, false
	}
}

// fillAll fills in everything but the section `vars`.
func (v *vars) fillAll(root *node) {
	for _, p := range root.pairs {
		if p.key.text != "vars" {
			v.fill(p.value)
		}
	}
}

func (v *vars) fill(n *node) {
	for _, item := range n.items {
		v.fill(item)
	}
	for _, p := range n.pairs {
		v.fill(p.key)
		v.fill(p.value)
	}
	if strings.Contains(n.text, "${") {
		n.raw = n.text
		n.text = variable.ReplaceAllStringFunc(n.text, func(ref string) string { return v.value(n, ref) })
	}
}

func (v *vars) value(n *node, ref string) string {
	if strings.HasPrefix(ref, "$$") {
		return ref[1:] // `$${HOME}` is the shell's
	}
	name := strings.TrimSpace(ref[2 : len(ref)-1])
	if slices.Contains(ofHost, name) {
		return ref
	}
	value, ok := v.values[name]
	if !ok {
		hint := meant(name, append(v.names(), ofHost...))
		v.src.wrong(v.src.find(n, ref), hint, "no variable `%s`", ref)
	}
	v.used[name] = true
	if !ok || v.broken[name] {
		n.bad = true
		return ref
	}
	return value
}

// find is the position of ref within the text of n.
func (s *source) find(n *node, ref string) Pos {
	line, start := []rune(s.line(n.pos)), max(n.pos.Col-1, 0)
	if start >= len(line) {
		return n.pos
	}
	before, _, found := strings.Cut(string(line[start:]), ref)
	if !found {
		return n.pos
	}
	pos := n.pos
	pos.Col += len([]rune(before))
	return pos
}

// unused refuses variables that were given and change nothing.
func (v *vars) unused(given map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, known := v.values[name]; known && !v.used[name] {
			v.src.wrong(Pos{File: "--var " + name}, "", "%s never uses `${%s}`", v.src.file, name)
		}
	}
}

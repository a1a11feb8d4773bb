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
	broken  map[string]bool // their values are mistakes
	changed map[string]string
}

// readVars reads the section `vars` in its order, so that a later variable may
// refer to an earlier one, and puts what was given instead.
func (s *source) readVars(root *node, given map[string]string) *vars {
	v := &vars{src: s, values: map[string]string{}, broken: map[string]bool{}, changed: map[string]string{}}
	if section := root.get("vars"); section != nil {
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

func (v *vars) names() []string { return slices.Collect(maps.Keys(v.values)) }

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

// fill replaces the variables in all texts below n but the section `vars`,
// which add has filled.
func (v *vars) fill(n *node) {
	for _, item := range n.items {
		v.fill(item)
	}
	for _, p := range n.pairs {
		if p.key.text != "vars" {
			v.fill(p.key)
			v.fill(p.value)
		}
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
		v.src.wrong(v.src.find(n.pos, ref), meant(name, append(v.names(), ofHost...)), "no variable `%s`", ref)
	}
	if !ok || v.broken[name] {
		n.bad = true
		return ref
	}
	return value
}

// find is the position of a part of the text at pos.
func (s *source) find(pos Pos, part string) Pos {
	line := []rune(s.line(pos))
	if start := min(max(pos.Col-1, 0), len(line)); part != "" {
		if before, _, found := strings.Cut(string(line[start:]), part); found {
			pos.Col += len([]rune(before))
		}
	}
	return pos
}

package runbooks

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one key of a section, with what its tag says:
//
//	need       it must be there, and hold something
//	subject    the section has exactly one of its subjects; Kind names it
//	with=a|b   it means something with these subjects only
//	short      a word instead of the section is this key's value
//	one=a|b    the words it may be
//	min, max   the numbers it may be
//	usual=x    its default
//	atmost=k   it is no longer than the key k; its default is shortened to it
//	keys=form  what a map's keys look like
//	unbuilt    known, not built; unbuilt=a|b: these words of it
//	form       what its text looks like (forms.go), or whose name it is (resolve.go)
type field struct {
	key   string
	index []int
	tags  map[string]string
	form  string
}

// fields are the keys of a type of types.go.
func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		switch key := f.Tag.Get("yaml"); key {
		case "", "-":
		case ",inline":
			for _, in := range fields(f.Type.Elem()) {
				in.index = append([]int{i}, in.index...)
				all = append(all, in)
			}
		default:
			all = append(all, tagged(key, i, f.Tag.Get("rule")))
		}
	}
	return all
}

func tagged(key string, i int, tag string) field {
	f := field{key: key, index: []int{i}, tags: map[string]string{}}
	for word := range strings.SplitSeq(tag, ",") {
		name, value, _ := strings.Cut(word, "=")
		if _, ref := names[name]; ref || forms[name] != nil {
			f.form = name
		}
		f.tags[name] = value
	}
	return f
}

func (f field) has(tag string) bool { _, ok := f.tags[tag]; return ok }

// words are those that a tag lists; none when it is not there.
func (f field) words(tag string) []string {
	if f.tags[tag] == "" {
		return nil
	}
	return strings.Split(f.tags[tag], "|")
}

func keysOf(all []field, tag string) []string {
	var keys []string
	for _, f := range all {
		if tag == "" || f.has(tag) {
			keys = append(keys, f.key)
		}
	}
	return keys
}

// judge asks for what a section misses, fills in defaults, and refuses what
// its keys may not say together. Keys in misspelt are as good as there.
func (s *source) judge(n *node, v reflect.Value, all []field, misspelt []string) {
	kind, wrong := s.subject(n, v, all, misspelt)
	if i := slices.IndexFunc(all, func(f field) bool { return f.key == kind }); i >= 0 {
		owner := v.FieldByIndex(all[i].index[:len(all[i].index)-1])
		set(reflect.Indirect(owner).Addr(), map[string]any{"Kind": kind})
	}
	for _, f := range all {
		value, with := n.get(f.key), f.words("with")
		fits := len(with) == 0 || slices.Contains(with, kind)
		switch {
		case wrong && len(with) > 0:
		case value != nil && !fits:
			s.wrong(value.pos, "", "`%s` means nothing with `%s`", f.key, kind)
		case value != nil && (f.has("need") || f.has("subject")):
			s.filled(value, v.FieldByIndex(f.index), f.key)
		case value == nil && f.has("need") && fits && !slices.Contains(misspelt, f.key):
			s.wrong(n.pos, "", "%s needs `%s`", called(v.Type()), f.key)
		case value == nil && f.has("usual"):
			s.decode(&node{shape: text, text: f.tags["usual"]}, v.FieldByIndex(f.index), f)
		}
	}
	for _, f := range all {
		if f.has("atmost") {
			s.atMost(n, v, all, f)
		}
	}
}

// subject is the one subject of a section that has subjects.
func (s *source) subject(n *node, v reflect.Value, all []field, misspelt []string) (kind string, wrong bool) {
	subjects := keysOf(all, "subject")
	for _, p := range n.pairs {
		switch {
		case !slices.Contains(subjects, p.key.text):
		case kind != "":
			s.wrong(p.key.pos, "", "%s is about one thing; `%s` and `%s` are two", called(v.Type()), kind, p.key.text)
			return "", true
		default:
			kind = p.key.text
		}
	}
	if kind == "" && len(subjects) > 0 {
		if !slices.ContainsFunc(subjects, func(key string) bool { return slices.Contains(misspelt, key) }) {
			s.wrong(n.pos, "", "%s needs one of %s", called(v.Type()), either(subjects))
		}
		return "", true
	}
	return kind, false
}

// filled refuses a list or a section that holds nothing.
func (s *source) filled(n *node, v reflect.Value, key string) {
	if !n.bad && (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		s.wrong(n.pos, "", "`%s` is empty", key)
	}
}

func (s *source) atMost(n *node, v reflect.Value, all []field, f field) {
	i := slices.IndexFunc(all, func(g field) bool { return g.key == f.tags["atmost"] })
	d, limit := v.FieldByIndex(f.index), v.FieldByIndex(all[i].index)
	switch value := n.get(f.key); {
	case limit.Int() == 0 || d.Int() <= limit.Int():
	case value == nil:
		d.SetInt(limit.Int())
	default:
		s.wrong(value.pos, "", "`%s` (%s) is longer than `%s` (%s)", f.key, brief(time.Duration(d.Int())), all[i].key, brief(time.Duration(limit.Int())))
	}
}

// word checks a text against the words, the range and the form of its key.
func (s *source) word(n *node, key string, f field) {
	if one := f.words("one"); one != nil && !slices.Contains(one, n.text) {
		s.bad(n, meant(n.text, one), "`%s` must be %s, not `%s`", key, either(one), n.text)
		return
	}
	if i, err := strconv.Atoi(n.text); err == nil {
		low, high := f.tags["min"], f.tags["max"]
		if least, err := strconv.Atoi(low); err == nil && i < least {
			s.bad(n, "", "`%s` must be at least %s, not %d", key, low, i)
		}
		if most, err := strconv.Atoi(high); err == nil && i > most {
			s.bad(n, "", "`%s` must be at most %s, not %d", key, high, i)
		}
	}
	s.look(n, key, f.form)
}

// look checks a text's form, or keeps a name to be looked up.
func (s *source) look(n *node, key, form string) {
	if _, ok := names[form]; ok {
		s.refs = append(s.refs, ref{what: form, name: n.text, pos: n.pos})
	} else if check := forms[form]; check != nil {
		if why, hint := check(plain(n.text)); why != "" {
			s.bad(n, hint, "`%s`: `%s` %s", key, n.text, why)
		}
	}
}

// called is what the reader calls a section of a type.
func called(t reflect.Type) string {
	switch name := strings.ToLower(t.Name()); name {
	case "project":
		return "deployer.yaml"
	case "notify":
		return "a receiver of `notify`"
	case "backupto":
		return "`backup`"
	case "offhost":
		return "`off-host`"
	case "item":
		return "an item"
	case "check", "host", "metric", "phase", "plugin", "rule", "runbook", "secret", "subvolume":
		return "a " + name
	default:
		return "`" + name + "`"
	}
}

// either is "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return "`" + words[0] + "`"
	}
	return "`" + strings.Join(words[:last], "`, `") + "` or `" + words[last] + "`"
}

package runbooks

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A type of types.go may say what its text, its node or its end means.
type (
	fromText interface{ fromText(s *source, n *node) } // a word instead of a section
	fromNode interface{ fromNode(s *source, n *node) } // a form of its own
	finisher interface{ finish(s *source, n *node) }   // defaults, and what the keys may not say together
)

var durationType = reflect.TypeFor[time.Duration]()

// decode puts a node into a value. key is what the reader calls it.
func (s *source) decode(n *node, v reflect.Value, key string, r rule) {
	switch {
	case v.Kind() == reflect.Pointer:
		s.decodePointer(n, v, key)
	case n.bad: // said already
	case v.Kind() == reflect.Slice && r.form == "shell" && n.shape == text:
		v.Set(reflect.ValueOf([]string{"sh", "-c", n.text}))
	case v.Kind() == reflect.Slice:
		s.decodeList(n, v, key, r)
	case v.Kind() == reflect.Map:
		s.decodeMap(n, v, key, r)
	case n.shape == nothing || n.shape == text && n.text == "":
		s.wrong(n.pos, "", "`%s` has no value", key)
	case n.shape != text:
		s.wrong(n.pos, "", "`%s` must be %s, not %s", key, wants(v.Type()), n.shape)
	default:
		s.decodeText(n, v, key, r)
	}
}

func wants(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a word"
}

func (s *source) decodeText(n *node, v reflect.Value, key string, r rule) {
	switch {
	case v.Type() == durationType:
		d, why, hint := parseDuration(n.text)
		if why != "" {
			s.wrong(n.pos, hint, "`%s`: %s%s", key, why, n.origin())
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.Int:
		i, err := strconv.Atoi(n.text)
		if err != nil {
			s.wrong(n.pos, "", "`%s` must be a whole number, not `%s`%s", key, n.text, n.origin())
		}
		v.SetInt(int64(i))
	case v.Kind() == reflect.Bool:
		if n.text != "true" && n.text != "false" {
			s.wrong(n.pos, "", "`%s` must be true or false, not `%s`%s", key, n.text, n.origin())
		}
		v.SetBool(n.text == "true")
	default:
		s.form(n, key, r)
		v.SetString(n.text)
	}
}

// origin names the variable that a text came from.
func (n *node) origin() string {
	if n.raw == "" {
		return ""
	}
	return " (from `" + n.raw + "`)"
}

// form checks a text against what its field's tag asks for.
func (s *source) form(n *node, key string, r rule) {
	if len(r.one) > 0 && !slices.Contains(r.one, n.text) {
		hint := meant(n.text, r.one)
		s.wrong(n.pos, hint, "`%s` must be %s, not `%s`%s", key, either(r.one), n.text, n.origin())
	}
	if slices.Contains(refKinds, r.form) {
		s.refs = append(s.refs, ref{what: r.form, name: n.text, pos: n.pos})
	} else if check := forms[r.form]; check != nil {
		if why, hint := check(plain(n.text)); why != "" {
			s.wrong(n.pos, hint, "`%s`: `%s` %s%s", key, n.text, why, n.origin())
		}
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

func (s *source) decodeList(n *node, v reflect.Value, key string, r rule) {
	switch n.shape {
	case list:
		v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
		for i, item := range n.items {
			s.decode(item, v.Index(i), key, r)
		}
	case text, section:
		hint := ""
		if n.shape == text {
			hint = "write [" + n.text + "]"
		}
		s.wrong(n.pos, hint, "`%s` must be a list, not %s", key, n.shape)
	}
}

func (s *source) decodeMap(n *node, v reflect.Value, key string, r rule) {
	v.Set(reflect.MakeMap(v.Type()))
	if n.shape != section {
		if n.shape != nothing {
			s.wrong(n.pos, "", "`%s` must be a section, not %s", key, n.shape)
		}
		return
	}
	for _, p := range n.pairs {
		s.form(p.key, key, rule{form: r.keys})
		value := reflect.New(v.Type().Elem()).Elem()
		s.decode(p.value, value, p.key.text, rule{one: r.one, form: r.form})
		s.setKey(value, p.key)
		v.SetMapIndex(reflect.ValueOf(p.key.text), value)
	}
}

// setKey gives an entry of a map its name and the position of its key.
func (s *source) setKey(v reflect.Value, key *node) {
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	for name, value := range map[string]any{"Pos": key.pos, "Name": key.text, "Path": key.text} {
		f, ok := v.Elem().Type().FieldByName(name)
		if ok && f.Tag.Get("yaml") == "-" {
			v.Elem().FieldByIndex(f.Index).Set(reflect.ValueOf(value))
		}
	}
}

func (s *source) decodePointer(n *node, v reflect.Value, key string) {
	v.Set(reflect.New(v.Type().Elem()))
	if v.Type() == reflect.TypeFor[*Notify]() {
		s.hide(n)
	}
	s.at[place{v.Interface(), ""}] = n.pos
	if pos := v.Elem().FieldByName("Pos"); pos.IsValid() {
		pos.Set(reflect.ValueOf(n.pos))
	}
	own, isNode := v.Interface().(fromNode)
	word, isText := v.Interface().(fromText)
	switch {
	case n.bad: // said already
	case isNode:
		own.fromNode(s, n)
	case n.shape == text && isText:
		word.fromText(s, n)
	case n.shape == text || n.shape == list:
		s.wrong(n.pos, "", "`%s` must be a section, not %s", key, n.shape)
	default:
		s.decodeStruct(n, v.Elem())
	}
}

// decodeStruct reads a section's keys, asks for those that are missing, and
// lets the type have the last word.
func (s *source) decodeStruct(n *node, v reflect.Value) {
	known := fields(v.Type())
	misspelt := map[string]bool{}
	for _, p := range n.pairs {
		i := slices.IndexFunc(known, func(f field) bool { return f.key == p.key.text })
		if i < 0 {
			hint := meant(p.key.text, keysOf(known))
			misspelt[hint] = true
			s.wrong(p.key.pos, hint, "%s has no key `%s`", called(v.Type()), p.key.text)
			continue
		}
		s.decodeField(p.value, v, known[i])
	}
	for _, f := range known {
		if f.need && n.get(f.key) == nil && !misspelt[didYouMean(f.key)] {
			s.wrong(n.pos, "", "%s needs `%s`", called(v.Type()), f.key)
		}
	}
	if last, ok := v.Addr().Interface().(finisher); ok {
		last.finish(s, n)
	}
}

func (s *source) decodeField(n *node, v reflect.Value, f field) {
	owner := v
	for _, i := range f.index[:len(f.index)-1] {
		owner = owner.Field(i)
		if owner.IsNil() {
			owner.Set(reflect.New(owner.Type().Elem()))
		}
		owner = owner.Elem()
	}
	s.at[place{owner.Addr().Interface(), f.key}] = n.pos
	s.decode(n, owner.Field(f.index[len(f.index)-1]), f.key, f.rule)
}

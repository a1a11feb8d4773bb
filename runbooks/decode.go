package runbooks

import (
	"reflect"
	"slices"
	"strconv"
	"time"
)

// finisher is a type whose keys mean more than their tags can say.
type finisher interface{ finish(s *source, n *node) }

// decode puts a node into a value. Every mistake is noted, and reading goes on.
func (s *source) decode(n *node, v reflect.Value, f field) {
	switch {
	case v.Kind() == reflect.Pointer:
		s.pointer(n, v, f)
	case n.bad: // said already
	case f.has("shell") && v.Kind() == reflect.Slice && n.shape == text:
		v.Set(reflect.ValueOf([]string{"sh", "-c", n.text}))
	case v.Kind() == reflect.Slice:
		s.items(n, v, f)
	case v.Kind() == reflect.Map:
		s.table(n, v, f)
	case n.shape == nothing || n.shape == text && n.text == "":
		s.bad(n, "", "`%s` has no value", f.key)
	default:
		s.scalar(n, v, f)
	}
}

func (s *source) scalar(n *node, v reflect.Value, f field) {
	value, wants, hint := any(n.text), "a word", ""
	var err error
	switch v.Interface().(type) {
	case time.Duration:
		wants = "a duration"
		value, hint, err = parseDuration(n.text)
	case int:
		wants = "a whole number"
		value, err = strconv.Atoi(n.text)
	case bool:
		wants = "true or false"
		value, err = n.text == "true", nil
		if n.text != "true" && n.text != "false" {
			err = strconv.ErrSyntax
		}
	}
	switch {
	case n.shape != text:
		s.bad(n, "", "`%s` must be %s, not %s", f.key, wants, n.shape)
	case err != nil:
		s.bad(n, hint, "`%s` must be %s, not `%s`", f.key, wants, n.text)
	default:
		s.word(n, f.key, f)
		v.Set(reflect.ValueOf(value))
	}
}

func (s *source) items(n *node, v reflect.Value, f field) {
	switch n.shape {
	case list:
		v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
		for i, item := range n.items {
			s.decode(item, v.Index(i), f)
		}
	case text:
		s.bad(n, "write ["+n.text+"]", "`%s` must be a list, not %s", f.key, n.shape)
	case section:
		s.bad(n, "", "`%s` must be a list, not %s", f.key, n.shape)
	}
}

func (s *source) table(n *node, v reflect.Value, f field) {
	v.Set(reflect.MakeMap(v.Type()))
	if n.shape == text || n.shape == list {
		s.bad(n, "", "`%s` must be a section, not %s", f.key, n.shape)
	}
	for _, p := range n.pairs {
		s.look(p.key, f.key, f.tags["keys"])
		value, one := reflect.New(v.Type().Elem()).Elem(), f
		one.key = p.key.text
		s.decode(p.value, value, one)
		if value.Kind() == reflect.Pointer {
			set(value, map[string]any{"Pos": p.key.pos, "Name": p.key.text, "Path": p.key.text})
		}
		v.SetMapIndex(reflect.ValueOf(p.key.text), value)
	}
}

// set fills those of a struct's fields that the file does not have as keys.
func set(v reflect.Value, values map[string]any) {
	for name, value := range values {
		if f, ok := v.Elem().Type().FieldByName(name); ok && f.Tag.Get("yaml") == "-" {
			v.Elem().FieldByIndex(f.Index).Set(reflect.ValueOf(value))
		}
	}
}

// pointer reads a section, or what may stand in its place.
func (s *source) pointer(n *node, v reflect.Value, f field) {
	v.Set(reflect.New(v.Type().Elem()))
	s.nodes[v.Interface()] = n
	set(v, map[string]any{"Pos": n.pos})
	switch own := v.Interface().(type) {
	case *Notify:
		s.hide(n)
	case *Phase:
		n = own.spread(s, n)
	case *Secret:
		if n.shape == text {
			own.Value = n.text
			return
		}
	case *Unbuilt:
		return
	}
	all := fields(v.Type().Elem())
	if short := keysOf(all, "short"); n.shape == text && short != nil {
		n = &node{shape: section, pos: n.pos, bad: n.bad, pairs: []pair{{&node{shape: text, text: short[0], pos: n.pos}, n}}}
	}
	switch {
	case n.bad: // said already
	case n.shape == text || n.shape == list:
		s.bad(n, "", "`%s` must be a section, not %s", f.key, n.shape)
	default:
		s.section(n, v.Elem(), all)
	}
}

// section reads keys, judges them together, and lets the type have the last word.
func (s *source) section(n *node, v reflect.Value, all []field) {
	s.nodes[v.Addr().Interface()] = n
	if rule, ok := v.Addr().Interface().(*Rule); ok { // the keys of its check stand beside its own
		rule.Check = &Check{Pos: n.pos}
		s.nodes[rule.Check] = n
	}
	var misspelt []string
	for _, p := range n.pairs {
		i := slices.IndexFunc(all, func(f field) bool { return f.key == p.key.text })
		if i < 0 {
			word := nearest(p.key.text, keysOf(all, ""))
			misspelt = append(misspelt, word)
			s.wrong(p.key.pos, didYouMean(word), "%s has no key `%s`", called(v.Type()), p.key.text)
			continue
		}
		s.decode(p.value, v.FieldByIndex(all[i].index), all[i])
	}
	s.judge(n, v, all, misspelt)
	if last, ok := v.Addr().Interface().(finisher); ok {
		last.finish(s, n)
	}
}

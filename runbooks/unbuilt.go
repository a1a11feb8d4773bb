package runbooks

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Unbuilt is what a runbook asks for and this version knows but has not built,
// each refused by its name. A run that ignored it would promise what nobody
// keeps, so it is asked before every run, and never when a file is only read.
func (p *Project) Unbuilt(rb *Runbook) []Mistake {
	u := &unbuilt{src: rb.src}
	u.walk(reflect.ValueOf(rb))
	u.src = p.src
	if len(rb.switched()) > 0 {
		u.walk(reflect.ValueOf(p.Snapshots))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Notify)) {
		if n := p.Notify[name]; n.Kind != "webhook" && n.Kind != "file" {
			u.refuse(reflect.ValueOf(n), "kind", "`kind: "+n.Kind+"`")
		}
	}
	return u.list
}

type unbuilt struct {
	src  *source
	list []Mistake
}

// walk looks for values of keys whose tag says that they are not built.
func (u *unbuilt) walk(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			u.walk(v.Index(i))
		}
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Pointer:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			u.walk(v.MapIndex(key))
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		u.section(v)
	}
}

func (u *unbuilt) section(v reflect.Value) {
	for _, f := range fields(v.Type().Elem()) {
		value := v.Elem().FieldByIndex(f.index)
		switch words := f.words("unbuilt"); {
		case !f.has("unbuilt") || value.IsZero():
			u.walk(value)
		case value.Kind() == reflect.String && (words == nil || slices.Contains(words, value.String())):
			u.refuse(v, f.key, "`"+f.key+": "+value.String()+"`")
		case value.Kind() != reflect.String:
			u.refuse(v, f.key, "`"+f.key+"`")
		}
	}
}

// refuse says so at the place of the key, or where the check that has it was named.
func (u *unbuilt) refuse(owner reflect.Value, key, what string) {
	m := Mistake{Message: what + " is not built in this version"}
	n := u.src.nodes[owner.Interface()]
	if n != nil {
		m.Pos, m.Snippet = n.at(key), u.src.snippet(n.at(key))
	}
	if c, ok := owner.Interface().(*Check); ok && n.get(key) == nil {
		m.Message = "the check `" + c.Name + "`: " + m.Message
	}
	u.list = append(u.list, m)
}

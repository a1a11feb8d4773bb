package runbooks

import (
	"fmt"
	"reflect"
	"strings"
)

// field is one key of a section.
type field struct {
	key   string
	index []int
	need  bool
	rule  rule
}

// rule is what a field's tag says of its values.
type rule struct {
	one  []string // the words it may be
	form string   // what its text must look like
	keys string   // what a map's keys must look like
}

// fields are the keys of a type of types.go.
func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		switch {
		case key == ",inline":
			for _, in := range fields(f.Type.Elem()) {
				in.index = append([]int{i}, in.index...)
				all = append(all, in)
			}
		case key != "" && key != "-":
			all = append(all, tagged(field{key: key, index: []int{i}}, f.Tag.Get("rule")))
		}
	}
	return all
}

func tagged(f field, tag string) field {
	for word := range strings.SplitSeq(tag, ",") {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "need":
			f.need = true
		case "one":
			f.rule.one = strings.Split(value, "|")
		case "keys":
			f.rule.keys = value
		default:
			f.rule.form = name
		}
	}
	return f
}

func keysOf(all []field) []string {
	keys := make([]string, len(all))
	for i, f := range all {
		keys[i] = f.key
	}
	return keys
}

// called is what the reader calls a section of this type.
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
	case "check", "host", "metric", "runbook", "plugin", "subvolume", "rule", "secret":
		return "a " + name
	default:
		return fmt.Sprintf("`%s`", name)
	}
}

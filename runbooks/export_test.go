package runbooks

import (
	"reflect"
	"time"
)

// ForTestMeant is the search for the nearest word.
var ForTestMeant = meant

// ForTestParse reads a duration and tells whether it is one.
func ForTestParse(text string) (time.Duration, bool) {
	d, _, err := parseDuration(text)
	return d, err == nil
}

// ForTestField is what a key's tag says.
type ForTestField struct {
	Key  string
	Need bool // always, not only with some subjects
	One  []string
	Form string
}

// ForTestFields are the keys of a section.
func ForTestFields(t reflect.Type) []ForTestField {
	var all []ForTestField
	for _, f := range fields(t) {
		form := f.form
		if f.has("shell") {
			form = "shell"
		}
		all = append(all, ForTestField{f.key, f.has("need") && !f.has("with"), f.words("one"), form})
	}
	return all
}

// ForTestSubjects are the keys of which a section has exactly one.
func ForTestSubjects(t reflect.Type) []string { return keysOf(fields(t), "subject") }

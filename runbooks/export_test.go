package runbooks

// What tests see of the reader of types.go.
var (
	ForTestFields = fields
	ForTestParse  = parseDuration
	ForTestMeant  = meant
)

// ForTestField is one key of a section.
type ForTestField = field

// ForTestRule is what a field says of itself.
func ForTestRule(f field) (key string, need bool, one []string, form string) {
	return f.key, f.need, f.rule.one, f.rule.form
}

// ForTestSubjects are the keys that every check can be about.
func ForTestSubjects() []string {
	var all []string
	for _, k := range subjects {
		all = append(all, k.kind)
	}
	return all
}

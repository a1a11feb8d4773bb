package runbooks_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/hbohlen/deployer/runbooks"
)

var update = flag.Bool("update", false, "write schema.json and the golden files")

type object = map[string]any

// generator makes schema.json from types.go: its types, tags and comments.
type generator struct {
	defs     object
	comments map[string]string // "Type" or "Type.Field"
}

func generate(t *testing.T) []byte {
	t.Helper()
	g := &generator{defs: object{}, comments: commentsOf(t, "types.go")}
	g.defs["word"] = object{"type": []string{"string", "number", "boolean"}}
	g.defs["duration"] = object{"type": "string", "pattern": `^(\d+(\.\d+)?(ms|s|m|h|d|w))+$|` + filled}
	g.defs["project"] = g.section(reflect.TypeFor[runbooks.Project]())
	g.defs["runbook"] = g.section(reflect.TypeFor[runbooks.Runbook]())
	whole := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "deployer.yaml and runbooks of deployer",
		"if":      object{"required": []string{"phases"}},
		"then":    object{"$ref": "#/$defs/runbook"},
		"else":    object{"$ref": "#/$defs/project"},
		"$defs":   g.defs,
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(whole); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func commentsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		spec := decl.Specs[0].(*ast.TypeSpec)
		all[spec.Name.Name] = strings.Replace(words(decl.Doc), spec.Name.Name, "This", 1)
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				all[spec.Name.Name+"."+fieldName(f)] = words(f.Comment)
			}
		}
		return false
	})
	return all
}

func fieldName(f *ast.Field) string {
	if len(f.Names) == 0 {
		return ""
	}
	return f.Names[0].Name
}

func words(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// section is the schema of a struct: its keys and no others.
func (g *generator) section(t reflect.Type) object {
	keys, need := object{}, []string{}
	g.keys(t, t, nil, keys, &need)
	out := object{"type": "object", "properties": keys, "additionalProperties": false}
	if len(need) > 0 {
		out["required"] = need
	}
	if subjects := runbooks.ForTestSubjects(t); len(subjects) > 0 {
		out["oneOf"] = required(subjects)
	}
	if c := g.comments[t.Name()]; c != "" {
		out["description"] = c
	}
	return out
}

func required(keys []string) []object {
	var all []object
	for _, key := range keys {
		all = append(all, object{"required": []string{key}})
	}
	return all
}

func (g *generator) keys(root, t reflect.Type, _ []int, keys object, need *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch key := f.Tag.Get("yaml"); key {
		case "", "-":
		case ",inline":
			g.keys(root, f.Type.Elem(), nil, keys, need)
		default:
			keys[key] = g.described(t.Name()+"."+f.Name, g.field(root, key, f.Type))
			for _, known := range runbooks.ForTestFields(root) {
				if known.Key == key && known.Need {
					*need = append(*need, key)
				}
			}
		}
	}
}

func (g *generator) described(name string, schema object) object {
	if c := g.comments[name]; c != "" {
		schema["description"] = c
	}
	return schema
}

func (g *generator) field(owner reflect.Type, key string, t reflect.Type) object {
	for _, f := range runbooks.ForTestFields(owner) {
		if f.Key == key {
			return g.value(t, f.One, f.Form)
		}
	}
	panic("no field " + key)
}

const filled = `\$\{` // a variable may stand for any word

func (g *generator) value(t reflect.Type, one []string, form string) object {
	variable := object{"type": "string", "pattern": filled}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return object{"$ref": "#/$defs/duration"}
	case len(one) == 1 && t.Kind() != reflect.String:
		return object{"anyOf": []object{{"const": json.RawMessage(one[0])}, variable}}
	case t.Kind() == reflect.Int:
		return object{"anyOf": []object{{"type": "integer"}, variable}}
	case t.Kind() == reflect.Bool:
		return object{"anyOf": []object{{"type": "boolean"}, variable}}
	case t.Kind() == reflect.Slice:
		items := object{"type": "array", "items": g.value(t.Elem(), one, "")}
		if form == "shell" {
			return object{"anyOf": []object{items, {"type": "string"}}}
		}
		return items
	case t.Kind() == reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": g.value(t.Elem(), one, "")}
	case t.Kind() == reflect.Pointer:
		return g.ref(t.Elem())
	case len(one) > 0:
		return object{"anyOf": []object{{"enum": one}, variable}}
	}
	return object{"$ref": "#/$defs/word"}
}

// ref is a definition of its own for each type, with its short forms.
func (g *generator) ref(t reflect.Type) object {
	name := strings.ToLower(t.Name())
	ref := object{"$ref": "#/$defs/" + name}
	if _, done := g.defs[name]; done {
		return ref
	}
	g.defs[name] = nil
	switch t.Name() {
	case "Unbuilt":
		g.defs[name] = object{"description": g.comments[t.Name()]}
	case "Phase":
		g.defs[name] = g.phase(t)
	case "Subvolume":
		g.defs[name] = object{"anyOf": []object{{"enum": []string{"keep", "restore", "ask"}}, g.section(t)}}
	case "Check", "Rule", "Secret":
		g.defs[name] = object{"anyOf": []object{{"type": "string"}, g.section(t)}}
	default:
		g.defs[name] = g.section(t)
	}
	return ref
}

// phase is `- kind: {…}`, `- kind: name` with the keys beside it, or a word.
func (g *generator) phase(t reflect.Type) object {
	kinds, forms := []string{}, []object{}
	for i := range t.NumField() {
		kind := t.Field(i).Tag.Get("yaml")
		if kind == "" || kind == "-" {
			continue
		}
		kinds = append(kinds, kind)
		ref := g.ref(t.Field(i).Type.Elem())
		nested := object{"type": "object", "required": []string{kind}, "additionalProperties": false, "properties": object{kind: ref}}
		forms = append(forms, nested, beside(kind, g.defs[strings.ToLower(t.Field(i).Type.Elem().Name())].(object)))
	}
	return object{"anyOf": append(forms, object{"enum": kinds}), "description": g.comments["Phase"]}
}

func beside(kind string, section object) object {
	keys := object{kind: object{"type": []string{"string", "null"}}}
	own, _ := section["properties"].(object)
	for key, value := range own {
		keys[key] = value
	}
	need, _ := section["required"].([]string)
	return object{"type": "object", "required": append([]string{kind}, need...), "additionalProperties": false, "properties": keys}
}

func TestTheSchemaAgreesWithTheTypes(t *testing.T) {
	want := generate(t)
	if *update {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(runbooks.Schema(""))); diff != "" {
		t.Errorf("schema.json is old, run go test -update:\n%s", diff)
	}
}

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(runbooks.Schema(name)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Load(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheSchemaAcceptsTheExamples(t *testing.T) {
	shipped, err := runbooks.ShippedFile("production")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"project": readFile(t, "testdata/project/deployer.yaml"),
		"runbook": readFile(t, "testdata/project/runbooks/production.yaml"),
		"shipped": shipped,
	} {
		narrow := strings.Replace(name, "shipped", "runbook", 1)
		for _, schema := range []string{"", narrow} {
			if err := compile(t, schema).Validate(asJSON(t, data)); err != nil {
				t.Errorf("%s by schema %q: %v", name, schema, err)
			}
		}
	}
}

func TestTheSchemaRefusesMistakes(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":      `{version: 1, phases: [{window: {opens: always}}]}`,
		"two kinds":        `{version: 1, phases: [{window: {open: always}, backup: {files: [a]}}]}`,
		"no kind":          `{version: 1, phases: [{items: []}]}`,
		"bad duration":     `{version: 1, phases: [{monitor: {for: 5 minutes}}]}`,
		"check of nothing": `{version: 1, phases: [{validate: {checks: [{within: 5s}]}}]}`,
		"check of two":     `{version: 1, phases: [{validate: {checks: [{unit: a.service, disk: /}]}}]}`,
		"missing":          `{version: 1, hosts: {a: {address: b}}}`,
		"not one of":       `{version: 1, hosts: {a: {address: b, system: c, build: there}}}`,
	} {
		if err := compile(t, "").Validate(asJSON(t, []byte(text))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if runbooks.Schema("journal") != nil {
		t.Error("a schema for a name that has none")
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

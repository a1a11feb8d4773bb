package runbooks

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// spread is a number measured for a while.
var spread = numbers("avg", "p50", "p95", "p99", "max", "iops")

// measured is what each kind of check measures and a condition may read, under
// the names that the hosts' agent gives it.
var measured = map[string]types.Map{
	"command":  numbers("code"),
	"http":     numbers("status"),
	"disk":     numbers("total_bytes", "free_bytes", "used_bytes", "free_percent", "used_percent", "inodes_free_percent"),
	"snapshot": numbers("age_seconds"),
	"backup":   numbers("age_seconds"),
	"fio":      {"after": spread, "baseline": spread},
	"metric":   {"value": types.Float, "after": spread, "baseline": spread},
}

func numbers(names ...string) types.Map {
	m := types.Map{}
	for _, name := range names {
		m[name] = types.Float
	}
	return m
}

func compile(kind, when string) (*vm.Program, error) {
	return expr.Compile(when, expr.Env(measured[kind]), expr.AsBool())
}

// condition refuses a `when` that could not be evaluated.
func (c *Check) condition(s *source, n *node) {
	_, err := compile(c.Kind, c.When)
	if c.When == "" || err == nil || measured[c.Kind] == nil {
		return
	}
	pos, message, hint := n.at("when"), err.Error(), ""
	var at *file.Error
	if errors.As(err, &at) {
		message = at.Message
		if r := []rune(c.When); at.Column < len(r) {
			pos = s.find(pos, string(r[at.Column:]))
		}
	}
	if name, ok := strings.CutPrefix(message, "unknown name "); ok {
		known := slices.Sorted(maps.Keys(measured[c.Kind]))
		hint = meant(name, known)
		if hint == "" {
			hint = "there is " + strings.Join(known, ", ")
		}
	} else if strings.HasPrefix(message, "expected bool") {
		message = "must be true or false"
	}
	first, _, _ := strings.Cut(message, "\n")
	s.wrong(pos, hint, "`when` over `%s`: %s", c.Kind, first)
}

// Holds evaluates the condition over what was measured (a spread is a map of
// its own). No data and NaN never hold, whatever the condition makes of them; a
// check without one holds.
func (c *Check) Holds(values map[string]any) (bool, error) {
	if c.When == "" {
		return true, nil
	}
	program, err := compile(c.Kind, c.When)
	if err != nil {
		return false, fmt.Errorf("cannot read the condition %q: %w", c.When, err)
	}
	reader := &reads{values: values}
	root := program.Node()
	ast.Walk(&root, reader)
	if reader.missing != "" {
		return false, fmt.Errorf("no data for %s", reader.missing)
	}
	held, err := expr.Run(program, values)
	if err != nil {
		return false, fmt.Errorf("cannot evaluate %q: %w", c.When, err)
	}
	return held == true, nil
}

// reads looks for the values that a condition reads and nobody measured.
type reads struct {
	values  map[string]any
	missing string
}

// Visit implements ast.Visitor.
func (r *reads) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		r.look(r.values[n.Value], n.Value)
	case *ast.MemberNode:
		base, isName := n.Node.(*ast.IdentifierNode)
		key, isWord := n.Property.(*ast.StringNode)
		if isName && isWord {
			inner, _ := r.values[base.Value].(map[string]any)
			r.look(inner[key.Value], base.Value+"."+key.Value)
		}
	}
}

func (r *reads) look(value any, name string) {
	number, isFloat := value.(float64)
	if value == nil || isFloat && (math.IsNaN(number) || math.IsInf(number, 0)) {
		r.missing = name
	}
}

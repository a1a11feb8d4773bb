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

// measured is what each kind of check measures and a condition may read: all
// of it numbers, under the names that the hosts' agent gives them.
var measured = map[string]types.Map{
	"command":  {"code": types.Float},
	"http":     {"status": types.Float},
	"disk":     numbers("total_bytes", "free_bytes", "used_bytes", "free_percent", "used_percent", "inodes_free_percent"),
	"snapshot": {"age_seconds": types.Float},
	"backup":   {"age_seconds": types.Float},
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

// Measured names the values that a condition of a kind of check may read.
func Measured(kind string) []string { return slices.Sorted(maps.Keys(measured[kind])) }

func compile(kind, when string) (*vm.Program, error) {
	options := []expr.Option{expr.Env(measured[kind]), expr.AsBool(), expr.DisableAllBuiltins()}
	for _, name := range []string{"abs", "ceil", "floor", "len", "lower", "max", "min", "round", "trim"} {
		options = append(options, expr.EnableBuiltin(name))
	}
	return expr.Compile(when, options...)
}

// condition refuses a `when` that could not be evaluated.
func (c *Check) condition(s *source) {
	if !s.has(c, "when") || c.When == "" {
		return
	}
	if len(measured[c.Kind]) == 0 {
		s.wrong(s.where(c, "when"), "", "a check of `%s` measures nothing that `when` could ask for", c.Kind)
		return
	}
	_, err := compile(c.Kind, c.When)
	if err == nil {
		return
	}
	pos, message, hint := s.where(c, "when"), err.Error(), ""
	var at *file.Error
	if errors.As(err, &at) {
		message = at.Message
		pos = s.find(&node{pos: pos}, cutRunes(c.When, at.Column))
	}
	if strings.HasPrefix(message, "expected bool") {
		message = "must be true or false"
	}
	if name, ok := strings.CutPrefix(message, "unknown name "); ok {
		hint = meant(name, Measured(c.Kind))
		if hint == "" {
			hint = "there is " + strings.Join(Measured(c.Kind), ", ")
		}
	}
	first, _, _ := strings.Cut(message, "\n")
	s.wrong(pos, hint, "`when` over `%s`: %s", c.Kind, first)
}

func cutRunes(text string, n int) string {
	if r := []rune(text); n < len(r) {
		return string(r[n:])
	}
	return text
}

// Holds evaluates the condition over what was measured, keyed as Measured says
// (those of a `metric` or `fio` are maps of their own). No data and NaN never
// hold, whatever the condition makes of them; a check without one holds.
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
		r.look(r.values, n.Value, n.Value)
	case *ast.MemberNode:
		base, isName := n.Node.(*ast.IdentifierNode)
		key, isWord := n.Property.(*ast.StringNode)
		if isName && isWord {
			inner, _ := r.values[base.Value].(map[string]any)
			r.look(inner, key.Value, base.Value+"."+key.Value)
		}
	}
}

func (r *reads) look(values map[string]any, key, name string) {
	value, ok := values[key]
	if number, isFloat := value.(float64); !ok || value == nil || isFloat && (math.IsNaN(number) || math.IsInf(number, 0)) {
		r.missing = name
	}
}

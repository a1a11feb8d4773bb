package runbooks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong in a file.
type Mistake struct {
	Pos     Pos
	Message string // lower case, in the words of the runbook
	Hint    string // what to write instead; may be empty
	Snippet string // the line with a caret under the place; empty where the line holds a secret
}

// String is the mistake on one line: `file:line:column: message; hint`.
func (m Mistake) String() string {
	line := m.Pos.String() + ": " + m.Message
	if m.Hint != "" {
		line += "; " + m.Hint
	}
	return line
}

// String is `file:line:column`, or less where less is known.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Errors is everything that is wrong in the files that were read, in the order
// of the files and of their lines.
type Errors struct{ List []Mistake }

// Error prints every mistake, one on a line.
func (e *Errors) Error() string { return e.print("") }

// Detail prints every mistake as a paragraph with its line of the file.
func (e *Errors) Detail() string { return e.print("\n") }

func (e *Errors) print(end string) string {
	parts := make([]string, len(e.List))
	for i, m := range e.List {
		parts[i] = m.String()
		if end != "" {
			parts[i] += end + m.Snippet
		}
	}
	return strings.Join(parts, "\n")
}

// source is one file while it is read, and what is wrong in it.
type source struct {
	file   string
	lines  []string
	list   []Mistake
	nodes  map[any]*node // of the sections that were read, by their values
	refs   []ref
	secret map[int]bool // lines that are never shown
}

func newSource(file string, data []byte) *source {
	return &source{file: file, lines: strings.Split(string(data), "\n"), nodes: map[any]*node{}, secret: map[int]bool{}}
}

func (s *source) wrong(pos Pos, hint, format string, args ...any) {
	s.list = append(s.list, Mistake{Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// bad is wrong for a text, and names the variable that the text came from.
func (s *source) bad(n *node, hint, format string, args ...any) {
	n.bad = true
	if n.raw != "" {
		format += " (from `%s`)"
		args = append(args, n.raw)
	}
	s.wrong(n.pos, hint, format, args...)
}

// hide keeps the lines of a section that may hold secrets out of all output.
func (s *source) hide(n *node) {
	s.secret[n.pos.Line] = true
	for _, item := range n.items {
		s.hide(item)
	}
	for _, p := range n.pairs {
		s.hide(p.key)
		s.hide(p.value)
	}
}

func (s *source) line(pos Pos) string {
	if pos.Line < 1 || pos.Line > len(s.lines) {
		return ""
	}
	return strings.TrimRight(s.lines[pos.Line-1], "\r")
}

func (s *source) snippet(pos Pos) string {
	line := strings.ReplaceAll(s.line(pos), "\t", " ")
	if line == "" || s.secret[pos.Line] {
		return ""
	}
	return fmt.Sprintf("%5d | %s\n      | %*s\n", pos.Line, line, max(pos.Col, 1), "^")
}

// mistakes are those of all files, each file's sorted; nil when there are none.
func mistakes(files ...*source) error {
	all := &Errors{}
	for _, s := range files {
		for i := range s.list {
			s.list[i].Snippet = s.snippet(s.list[i].Pos)
		}
		slices.SortStableFunc(s.list, func(a, b Mistake) int {
			return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
		})
		all.List = append(all.List, slices.Compact(s.list)...)
	}
	if len(all.List) == 0 {
		return nil
	}
	return all
}

// meant is "did you mean `x`?" for the nearest of the known words, or empty.
func meant(word string, known []string) string { return didYouMean(nearest(word, known)) }

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return "did you mean `" + word + "`?"
}

func nearest(word string, known []string) string {
	best, least := "", min(len(word)/3+2, len(word))
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(strings.ToLower(word), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to change, add, drop or swap.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j], row[j-1]) + 1
			if a[i-1] == b[j-1] {
				row[j] = min(row[j], last[j-1])
			}
			row[j] = min(row[j], last[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

package runbooks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// source is one file while it is read, and what is wrong in it.
type source struct {
	file  string
	lines []string
	list  []Mistake
	at    map[place]Pos
	refs  []ref

	secret map[int]bool // lines that are never shown
}

// place is a field of a value that was read, by its key in the file.
type place struct {
	owner any
	key   string
}

func newSource(file string, data []byte) *source {
	return &source{file: file, lines: strings.Split(string(data), "\n"), at: map[place]Pos{}, secret: map[int]bool{}}
}

// where is the position of a field, or of its owner when the field is not there.
func (s *source) where(owner any, key string) Pos {
	if s == nil {
		return Pos{}
	}
	for _, k := range []string{key, ""} {
		if pos, ok := s.at[place{owner, k}]; ok {
			return pos
		}
	}
	return Pos{File: s.file}
}

// has tells whether the file sets a field.
func (s *source) has(owner any, key string) bool {
	_, ok := s.at[place{owner, key}]
	return ok
}

// sound tells whether the file sets a field to a value that could be read.
func (s *source) sound(owner any, key string) bool {
	pos := s.where(owner, key)
	return s.has(owner, key) && !slices.ContainsFunc(s.list, func(m Mistake) bool { return m.Pos == pos })
}

func (s *source) wrong(pos Pos, hint, format string, args ...any) {
	s.list = append(s.list, Mistake{pos, fmt.Sprintf(format, args...), hint, s.snippet(pos)})
}

// wrongSecret is wrong without the line, which holds what nobody may see.
func (s *source) wrongSecret(pos Pos, hint, format string, args ...any) {
	s.secret[pos.Line] = true
	s.wrong(pos, hint, format, args...)
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

func (s *source) snippet(pos Pos) string {
	if s == nil || s.secret[pos.Line] || pos.Line < 1 || pos.Line > len(s.lines) {
		return ""
	}
	line := strings.ReplaceAll(strings.TrimRight(s.lines[pos.Line-1], "\r"), "\t", " ")
	number := fmt.Sprintf("%5d", pos.Line)
	caret := strings.Repeat(" ", max(pos.Col-1, 0)) + "^"
	return fmt.Sprintf("%s | %s\n%5s | %s\n", number, line, "", caret)
}

// err is what is wrong so far, sorted and each once; nil when nothing is.
func (s *source) err() error {
	if len(s.list) == 0 {
		return nil
	}
	for i, m := range s.list {
		if s.secret[m.Pos.Line] {
			s.list[i].Snippet = ""
		}
	}
	slices.SortStableFunc(s.list, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return &Errors{List: slices.Compact(s.list)}
}

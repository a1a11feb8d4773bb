package runbooks

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v4"
)

// node is a piece of a file: text, a list, a section of keys, or nothing.
type node struct {
	shape shape
	text  string
	raw   string // the text before variables were filled in, when they were
	bad   bool   // a variable of the text is not known
	pos   Pos
	items []*node
	pairs []pair
}

type pair struct{ key, value *node }

type shape int

const (
	nothing shape = iota
	text
	list
	section
)

func (k shape) String() string {
	return [...]string{"nothing", "a word", "a list", "a section"}[k]
}

const (
	maxFile  = 1 << 20
	maxDepth = 32
)

// parse reads the one document of a file, or says why it is none. This file is
// the only one that knows the YAML library.
func (s *source) parse(data []byte) *node {
	if len(data) > maxFile {
		s.wrong(Pos{File: s.file}, "", "the file is larger than 1 MiB")
		return nil
	}
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		s.syntax(err)
		return nil
	}
	if len(doc.Content) == 0 {
		s.wrong(Pos{File: s.file}, "", "the file is empty")
		return nil
	}
	return s.node(doc.Content[0], 0)
}

func (s *source) syntax(err error) {
	var at *yaml.LoadError
	pos, message := Pos{File: s.file}, err.Error()
	if errors.As(err, &at) {
		pos.Line, pos.Col, message = at.Mark.Line, at.Mark.Column, at.Message
		if strings.Contains(message, "end of stream") && at.ContextMark.Line > 0 {
			pos.Line, pos.Col, message = at.ContextMark.Line, at.ContextMark.Column, "the quote is never closed"
		}
	}
	hint := ""
	switch {
	case strings.Contains(message, "no documents"):
		message = "the file is empty"
	case strings.Contains(message, "found multiple"):
		message, hint = "the file holds more than one document", "remove the line `---`"
	case s.char(pos) == '\t':
		message, hint = "a tab cannot indent", "use spaces"
	case strings.Contains(message, "cannot start any token"):
		message, hint = "`"+string(s.char(pos))+"` cannot begin a word", "put the word in quotes"
	case strings.Contains(message, "mapping values are not allowed"):
		message, hint = "a second `:` in one entry", "put the text in quotes, or begin a new line"
	case strings.Contains(message, "did not find") && strings.Contains(s.line(pos), "${"):
		hint = "inside [] and {} a variable needs quotes: \"${name}\""
	}
	s.wrong(pos, hint, "%s", message)
}

func (s *source) line(pos Pos) string {
	if pos.Line < 1 || pos.Line > len(s.lines) {
		return ""
	}
	return s.lines[pos.Line-1]
}

func (s *source) char(pos Pos) rune {
	if r := []rune(s.line(pos)); pos.Col >= 1 && pos.Col <= len(r) {
		return r[pos.Col-1]
	}
	return 0
}

func (s *source) node(y *yaml.Node, depth int) *node {
	n := &node{pos: Pos{s.file, y.Line, y.Column}}
	switch {
	case depth > maxDepth:
		s.wrong(n.pos, "", "sections are nested too deeply")
	case y.Kind == yaml.AliasNode:
		n.bad = true
		s.wrong(n.pos, "use a variable, or name a check once under `checks`", "aliases (`*%s`) are not known here", y.Value)
	case y.Kind == yaml.SequenceNode:
		n.shape = list
		for _, c := range y.Content {
			n.items = append(n.items, s.node(c, depth+1))
		}
	case y.Kind == yaml.MappingNode:
		n.shape = section
		s.section(n, y, depth)
	case y.Kind == yaml.ScalarNode && y.ShortTag() != "!!null":
		n.shape, n.text = text, y.Value
	}
	return n
}

func (s *source) section(n *node, y *yaml.Node, depth int) {
	seen := map[string]Pos{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := s.node(y.Content[i], depth+1)
		if key.shape != text {
			s.wrong(key.pos, "", "a key must be a word")
			continue
		}
		if first, twice := seen[key.text]; twice {
			s.wrong(key.pos, "", "`%s` stands here twice; it is already at %d:%d", key.text, first.Line, first.Col)
			continue
		}
		seen[key.text] = key.pos
		n.pairs = append(n.pairs, pair{key, s.node(y.Content[i+1], depth+1)})
	}
}

// get is the value of a key, or nil.
func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

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
	bad   bool   // a mistake in it was noted: its value means nothing
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

// get is the value of a key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// at is the position of a key's value, or of the section where it has no such key.
func (n *node) at(key string) Pos {
	if value := n.get(key); value != nil {
		return value.pos
	}
	return n.pos
}

// parse reads the one document of a file, or says why it is none. This file is
// the only one that knows the YAML library.
func (s *source) parse(data []byte) *node {
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		s.syntax(err)
		return nil
	}
	if len(doc.Content) == 0 {
		s.wrong(Pos{File: s.file}, "", "the file is empty")
		return nil
	}
	root := s.node(doc.Content[0])
	if root.shape != section {
		s.wrong(root.pos, "", "the file must be a section of keys, not %s", root.shape)
		return nil
	}
	return root
}

// plainer says what the library means by its words, and what to do.
var plainer = []struct{ theirs, ours, hint string }{
	{"no documents", "the file is empty", ""},
	{"found multiple", "the file holds more than one document", "remove the line `---`"},
	{"end of stream", "the quote is never closed", ""},
	{"cannot start any token", "this character cannot begin a word", "put the word in quotes; spaces indent, not tabs"},
	{"mapping values are not allowed", "a second `:` in one entry", "put the text in quotes, or begin a new line"},
}

func (s *source) syntax(err error) {
	var at *yaml.LoadError
	pos, message, hint := Pos{File: s.file}, err.Error(), ""
	if errors.As(err, &at) {
		pos.Line, pos.Col, message = at.Mark.Line, at.Mark.Column, at.Message
		if strings.Contains(message, "end of stream") && at.ContextMark.Line > 0 {
			pos.Line, pos.Col = at.ContextMark.Line, at.ContextMark.Column
		}
	}
	if strings.Contains(message, "did not find") && strings.Contains(s.line(pos), "${") {
		hint = "inside [] and {} a variable needs quotes: \"${name}\""
	}
	for _, p := range plainer {
		if strings.Contains(message, p.theirs) {
			message, hint = p.ours, p.hint
		}
	}
	s.wrong(pos, hint, "%s", message)
}

func (s *source) node(y *yaml.Node) *node {
	n := &node{pos: Pos{s.file, y.Line, y.Column}}
	switch {
	case y.Kind == yaml.AliasNode:
		s.bad(n, "use a variable, or name a check once under `checks`", "aliases (`*%s`) are not known here", y.Value)
	case y.Kind == yaml.SequenceNode:
		n.shape = list
		for _, c := range y.Content {
			n.items = append(n.items, s.node(c))
		}
	case y.Kind == yaml.MappingNode:
		n.shape = section
		s.pairs(n, y)
	case y.Kind == yaml.ScalarNode && y.ShortTag() != "!!null":
		n.shape, n.text = text, y.Value
	}
	return n
}

func (s *source) pairs(n *node, y *yaml.Node) {
	seen := map[string]Pos{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := s.node(y.Content[i])
		first, twice := seen[key.text]
		switch {
		case key.shape != text:
			s.wrong(key.pos, "", "a key must be a word")
		case twice:
			s.wrong(key.pos, "", "`%s` stands here twice; it is already at %d:%d", key.text, first.Line, first.Col)
		default:
			seen[key.text] = key.pos
			n.pairs = append(n.pairs, pair{key, s.node(y.Content[i+1])})
		}
	}
}

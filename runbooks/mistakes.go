package runbooks

import (
	"errors"
	"fmt"
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

// Errors is everything that is wrong in the files that were read, in the order
// of the files and of their lines.
type Errors struct{ List []Mistake }

// Error prints every mistake, one on a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.List))
	for i, m := range e.List {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// Detail prints every mistake as a paragraph with its line of the file.
func (e *Errors) Detail() string {
	parts := make([]string, len(e.List))
	for i, m := range e.List {
		parts[i] = m.String() + "\n" + m.Snippet
	}
	return strings.Join(parts, "\n")
}

// String is `file:line:column`, or less where less is known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// together joins the mistakes of several files.
func together(errs ...error) error {
	all := &Errors{}
	for _, err := range errs {
		var e *Errors
		if errors.As(err, &e) {
			all.List = append(all.List, e.List...)
		} else if err != nil {
			return err
		}
	}
	if len(all.List) == 0 {
		return nil
	}
	return all
}

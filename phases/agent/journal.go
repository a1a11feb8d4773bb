package agent

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Journal is what units print, kept by the host.
type Journal interface {
	// Read is what the unit's processes printed after args.Cursor.
	Read(ctx context.Context, args OutputArgs) (Output, error)
}

const (
	outputLines = 1000
	outputBytes = 4 << 20 // well below MaxLine, escapes included
)

func (s systemd) Read(ctx context.Context, args OutputArgs) (Output, error) {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	// Else what was printed a moment ago may not be in the files yet: journalctl(1).
	_, _ = s.output(ctx, "journalctl", "--sync")
	// Only the unit's own processes: --unit would add the manager's remarks about it.
	command := []string{"journalctl", "--quiet", "--no-pager", "--all", "--output=json", "--output-fields=MESSAGE",
		"--lines=" + strconv.Itoa(args.Max), "_SYSTEMD_UNIT=" + args.Unit}
	if args.Cursor != "" {
		command = append(command, "--after-cursor="+args.Cursor)
	}
	var out strings.Builder
	a := &agent{Options: Options{Path: s.path}}
	c := a.command(ctx, command, nil)
	c.Stdout = &out
	if err := c.Run(); err != nil {
		return Output{}, err
	}
	return parseJournal(out.String(), args.Cursor), nil
}

// parseJournal reads `journalctl -o json`: a message is a string, a list of
// bytes when it is not UTF-8, or null when it is too long (systemd.journal-fields(7)).
func parseJournal(text, cursor string) Output {
	out := Output{Lines: []string{}, Cursor: cursor}
	for line := range strings.Lines(text) {
		var entry struct {
			Cursor  string          `json:"__CURSOR"`
			Message json.RawMessage `json:"MESSAGE"`
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		out.Cursor = entry.Cursor
		out.Lines = append(out.Lines, message(entry.Message))
	}
	size := 0
	for i := len(out.Lines) - 1; i >= 0; i-- {
		if size += len(out.Lines[i]); size > outputBytes {
			out.Lines = out.Lines[i+1:]
			break
		}
	}
	return out
}

func message(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return clean(text)
	}
	var numbers []int
	if json.Unmarshal(raw, &numbers) != nil {
		return ""
	}
	data := make([]byte, len(numbers))
	for i, n := range numbers {
		data[i] = byte(n)
	}
	return clean(string(data))
}

// clean takes out what could move a terminal's cursor or change its colours:
// escape sequences as a whole, other control characters but newline and tab.
func clean(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += escape(s[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if !isControl(r) {
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}

// escape is the length of the escape sequence at the start of s (ECMA-48: CSI,
// the strings OSC, DCS, APC, PM and SOS, else two bytes).
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']', 'P', '_', '^', 'X':
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	}
	return 2
}

package agent

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
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
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// Else what was printed a moment ago may not be in the files yet: journalctl(1).
	_, _ = output(ctx, s.path, "journalctl", "--sync")
	// Only the unit's own processes: --unit would add the manager's remarks about it.
	command := []string{"journalctl", "--quiet", "--no-pager", "--all", "--output=json", "--output-fields=MESSAGE",
		"--lines=" + strconv.Itoa(args.Max), "_SYSTEMD_UNIT=" + args.Unit}
	if args.Cursor != "" {
		command = append(command, "--after-cursor="+args.Cursor)
	}
	text, err := output(ctx, s.path, command...)
	return parseJournal(text, args.Cursor), err
}

func parseJournal(text, cursor string) Output {
	out := Output{Lines: []string{}, Cursor: cursor}
	for line := range strings.Lines(text) {
		var entry struct {
			Cursor  string          `json:"__CURSOR"`
			Message json.RawMessage `json:"MESSAGE"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil {
			out.Cursor, out.Lines = entry.Cursor, append(out.Lines, message(entry.Message))
		}
	}
	size := 0
	for i, line := range slices.Backward(out.Lines) {
		if size += len(line); size > outputBytes {
			out.Lines = out.Lines[i+1:]
			break
		}
	}
	return out
}

// message is a string, a list of bytes when it is not UTF-8, or null when it is
// too long (systemd.journal-fields(7)).
func message(raw json.RawMessage) string {
	var text string
	var numbers []int
	if json.Unmarshal(raw, &text) == nil {
		return clean(text)
	}
	_ = json.Unmarshal(raw, &numbers)
	data := make([]byte, len(numbers))
	for i, n := range numbers {
		data[i] = byte(n)
	}
	return clean(string(data))
}

// escapes are those of ECMA-48: CSI, the strings OSC, DCS, APC, PM and SOS, else two bytes.
var escapes = regexp.MustCompile(`(?s)\x1b(\[[^@-~]*[@-~]?|[\]P_^X].*?(\x07|\x1b\\|$)|.?)`)

// clean takes out what could move a terminal's cursor or change its colours:
// escape sequences as a whole, other control characters but newline and tab.
func clean(s string) string {
	if strings.IndexByte(s, 0x1b) >= 0 {
		s = escapes.ReplaceAllString(s, "")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, s)
}

package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	hidden    = "[secret]"
	minSecret = 4
)

// Redact has each secret replaced by [secret] in all records from here on: in
// Text, Reason, Hint, and every string in Data. Names (run, host, phase, step)
// stay, since a record that loses them loses its step. The lines of a secret
// with several are secrets too. Secrets under 4 bytes are refused: hiding them
// would tear up all other text.
func (j *Journal) Redact(secrets ...string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	short := 0
	for _, secret := range secrets {
		secret = strings.TrimSpace(strings.ToValidUTF8(secret, "\uFFFD"))
		if len(secret) < minSecret {
			short++
			continue
		}
		j.secrets = append(j.secrets, secret)
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= minSecret {
				j.secrets = append(j.secrets, line)
			}
		}
	}
	if short > 0 {
		return fmt.Errorf("cannot hide %d secret(s) shorter than %d bytes; use longer ones", short, minSecret)
	}
	return nil
}

// clean hides the secrets in rec, and gives it the form that decoding yields.
func clean(rec *Record, secrets []string) error {
	tidy := func(s string) string { return hide(strings.ToValidUTF8(s, "\uFFFD"), secrets) }
	rec.Text, rec.Reason = tidy(rec.Text), tidy(rec.Reason)
	rec.Hint = slices.Clone(rec.Hint)
	for i, hint := range rec.Hint {
		rec.Hint[i] = tidy(hint)
	}
	if len(rec.Data) == 0 {
		return nil
	}
	data, err := cleanJSON(rec.Data, tidy, len(secrets) > 0)
	if err != nil {
		return fmt.Errorf("cannot encode the data of a %s record: %w", rec.Kind, err)
	}
	rec.Data = data
	return nil
}

func cleanJSON(data json.RawMessage, tidy func(string) string, search bool) (json.RawMessage, error) {
	var out bytes.Buffer
	if err := json.Compact(&out, bytes.ToValidUTF8(data, []byte("\uFFFD"))); err != nil || !search {
		return out.Bytes(), err
	}
	var value any
	dec := json.NewDecoder(bytes.NewReader(bytes.Clone(out.Bytes())))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	out.Reset()
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(walk(value, tidy))
	return bytes.TrimSpace(out.Bytes()), err
}

// walk applies tidy to every string in a decoded value, keys and numbers too.
func walk(value any, tidy func(string) string) any {
	switch value := value.(type) {
	case string:
		return tidy(value)
	case json.Number:
		if plain := tidy(value.String()); plain != value.String() {
			return plain
		}
	case []any:
		for i := range value {
			value[i] = walk(value[i], tidy)
		}
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, inner := range value {
			out[tidy(key)] = walk(inner, tidy)
		}
		return out
	}
	return value
}

// hide replaces each stretch of text that one or more secrets cover.
func hide(text string, secrets []string) string {
	var covered []bool
	for _, secret := range secrets {
		for at := 0; ; at++ {
			n := strings.Index(text[at:], secret)
			if n < 0 {
				break
			}
			if covered == nil {
				covered = make([]bool, len(text))
			}
			at += n
			for i := range len(secret) {
				covered[at+i] = true
			}
		}
	}
	if covered == nil {
		return text
	}
	return blank(text, covered)
}

func blank(text string, covered []bool) string {
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !covered[i]:
			out.WriteByte(text[i])
		case i == 0 || !covered[i-1]:
			out.WriteString(hidden)
		}
	}
	return out.String()
}

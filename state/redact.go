package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const minSecret = 4

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
		secret = valid(strings.TrimSpace(secret))
		if len(secret) < minSecret {
			short++
		}
		for _, part := range append(strings.Split(secret, "\n"), secret) {
			if part = strings.TrimSpace(part); len(part) >= minSecret {
				j.secrets = append(j.secrets, part)
			}
		}
	}
	if short > 0 {
		return fmt.Errorf("cannot hide %d secret(s) shorter than %d bytes; use longer ones", short, minSecret)
	}
	return nil
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// clean hides the secrets in rec, and gives it the form that decoding yields.
func clean(rec *Record, secrets []string) (err error) {
	rec.Text, rec.Reason = hide(valid(rec.Text), secrets), hide(valid(rec.Reason), secrets)
	rec.Hint = slices.Clone(rec.Hint)
	for i, hint := range rec.Hint {
		rec.Hint[i] = hide(valid(hint), secrets)
	}
	if len(rec.Data) > 0 {
		if rec.Data, err = cleanJSON(rec.Data, secrets); err != nil {
			return fmt.Errorf("cannot encode the data of a %s record: %w", rec.Kind, err)
		}
	}
	return nil
}

func cleanJSON(data json.RawMessage, secrets []string) (json.RawMessage, error) {
	var out bytes.Buffer
	if err := json.Compact(&out, bytes.ToValidUTF8(data, []byte("\uFFFD"))); err != nil || len(secrets) == 0 {
		return out.Bytes(), err
	}
	var value any
	dec := json.NewDecoder(&out)
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	out.Reset()
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(walk(value, secrets))
	return bytes.TrimSpace(out.Bytes()), err
}

// walk hides the secrets in every string of a decoded value, keys and numbers too.
func walk(value any, secrets []string) any {
	switch value := value.(type) {
	case string:
		return hide(value, secrets)
	case json.Number:
		if plain := hide(value.String(), secrets); plain != value.String() {
			return plain
		}
	case []any:
		for i := range value {
			value[i] = walk(value[i], secrets)
		}
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, inner := range value {
			out[hide(key, secrets)] = walk(inner, secrets)
		}
		return out
	}
	return value
}

// hide replaces each stretch of text that one or more secrets cover.
func hide(text string, secrets []string) string {
	covered := make([]bool, len(text))
	for _, secret := range secrets {
		for at := 0; at <= len(text)-len(secret); at++ {
			if strings.HasPrefix(text[at:], secret) {
				for i := range len(secret) {
					covered[at+i] = true
				}
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		if !covered[i] {
			out.WriteByte(text[i])
		} else if i == 0 || !covered[i-1] {
			out.WriteString("[secret]")
		}
	}
	return out.String()
}

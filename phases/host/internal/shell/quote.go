package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Quote returns s as one word of a POSIX shell.
func Quote(s string) string {
	// A leading = or %, and ! or ^ in the middle, mean something to some shells;
	// syntax.Quote leaves words alone that POSIX leaves alone, which is enough
	// here: /bin/sh reads them.
	if q, err := syntax.Quote(s, syntax.LangPOSIX); err == nil {
		return q
	}
	// POSIX has no escapes for bytes that do not print, but single quotes keep
	// every byte as it is.
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// wrap makes a line for any login shell from a POSIX script. Inside single
// quotes fish reads a backslash, POSIX shells do not; outside they agree.
func wrap(script string) string {
	return "exec /bin/sh -c '" + strings.NewReplacer("'", `'\''`, `\`, `'\\'`).Replace(script) + "'"
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}

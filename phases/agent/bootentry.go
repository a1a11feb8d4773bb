package agent

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
)

// entry is one boot loader entry (https://uapi-group.org/specifications/specs/boot_loader_specification).
type entry struct {
	id, sortKey, version, system string
	bad                          bool // boot counting: no tries left
}

// systemdBoot finds the default among the entries: the first in menu order that
// the pattern fits, else the first.
func systemdBoot(files []bootFile, override string) Boot {
	slices.SortFunc(files, func(x, y bootFile) int { return strings.Compare(x.name, y.name) })
	b := Boot{Loader: "systemd-boot", Digest: digest(files)}
	pattern := override
	var entries []entry
	for _, f := range files {
		if f.name == "loader.conf" {
			pattern = cmp.Or(pattern, value(f, "default", " "))
		} else {
			entries = append(entries, newEntry(f))
		}
	}
	if strings.HasPrefix(pattern, "@") || len(entries) == 0 { // @saved: only the firmware knows
		return b
	}
	slices.SortStableFunc(entries, menuOrder)
	pick := slices.IndexFunc(entries, func(e entry) bool { return e.fits(pattern) })
	e := entries[max(pick, 0)]
	b.Default, b.System = e.id, e.system
	return b
}

var tries = regexp.MustCompile(`\+([0-9]+)(-[0-9]+)?\.conf$`)

func newEntry(f bootFile) entry {
	e := entry{id: path.Base(f.name), sortKey: value(f, "sort-key", " "), version: value(f, "version", " ")}
	if m := tries.FindStringSubmatch(e.id); m != nil {
		e.id, e.bad = strings.TrimSuffix(e.id, m[0])+".conf", m[1] == "0"
	}
	for _, l := range f.lines {
		if key, rest, _ := strings.Cut(strings.TrimSpace(l), " "); key == "options" && e.system == "" {
			e.system = initOf(rest)
		}
	}
	return e
}

func (e entry) fits(pattern string) bool {
	id, pattern := strings.ToLower(e.id), strings.ToLower(pattern)
	ok, _ := path.Match(pattern, id)
	bare, _ := path.Match(pattern, strings.TrimSuffix(id, ".conf"))
	return pattern != "" && (ok || bare)
}

func menuOrder(x, y entry) int {
	return cmp.Or(x.rank()-y.rank(), strings.Compare(x.sortKey, y.sortKey), natural(y.version, x.version), natural(y.id, x.id))
}

// rank: what has no tries left comes last, and what has no sort key after what has one.
func (e entry) rank() (rank int) {
	if e.bad {
		rank += 2
	}
	if e.sortKey == "" {
		rank++
	}
	return rank
}

var parts = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// natural compares text with numbers in it: 9 before 10.
func natural(x, y string) int {
	return slices.CompareFunc(parts.FindAllString(x, -1), parts.FindAllString(y, -1), func(p, q string) int {
		if isNumber(p) && isNumber(q) {
			p, q = strings.TrimLeft(p, "0"), strings.TrimLeft(q, "0")
			return cmp.Or(len(p)-len(q), strings.Compare(p, q))
		}
		return strings.Compare(p, q)
	})
}

func isNumber(s string) bool { return s[0] >= '0' && s[0] <= '9' }

func value(f bootFile, key, sep string) string {
	for _, l := range f.lines {
		if k, rest, ok := strings.Cut(strings.TrimSpace(l), sep); ok && k == key {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// initOf is the toplevel of init=TOPLEVEL/init on a kernel's command line.
func initOf(options string) string {
	for _, word := range strings.Fields(options) {
		if init, ok := strings.CutPrefix(word, "init="); ok {
			return strings.TrimSuffix(init, "/init")
		}
	}
	return ""
}

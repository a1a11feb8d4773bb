package runbooks

import (
	"errors"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every controller
)

// forms say what is wrong with a text, and what to write instead.
var forms = map[string]func(text string) (why, hint string){
	"name":     matching(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`, "is not a name", "use letters, digits, `-`, `_` and `.`"),
	"unit":     matching(`^[\w:.@\\-]+\.(service|socket|target|timer|mount|automount|path|slice|scope|swap|device)$`, "is not the name of a unit", "write it with its kind, like caddy.service"),
	"sha256":   matching(`^[0-9a-f]{64}$`, "is not a SHA-256 digest", "64 lower-case hex digits, from sha256sum"),
	"hostport": matching(`^(\[.+\]|[^:]+):[1-9]\d{0,4}$`, "is not host:port", "like localhost:5432"),
	"address":  matching("^[^-\\s\"'/@$`;][^\\s\"'/@$`;]*$", "is not an address", "a host name, an IP address, address:port or an ssh_config alias"),
	"abs": func(text string) (string, string) {
		clean := path.Clean("/" + text)
		return unless(clean == text, "must be an absolute path", "write "+clean)
	},
	"rel": func(text string) (string, string) {
		file, _ := Optional(text)
		return unless(filepath.IsLocal(file), "must be a path within the project's folder", "files of a host stand under `host`")
	},
	"url": func(text string) (string, string) {
		u, err := url.Parse(text)
		if err == nil && u.User != nil {
			return "carries a name or password", "secrets come from env, file or command"
		}
		return unless(err == nil && u.Host != "" && strings.HasPrefix(u.Scheme, "http"), "is not a web address", "it begins with http:// or https://")
	},
	"zone": func(text string) (string, string) {
		_, err := loadZone(text)
		return unless(err == nil, "is no time zone", "an IANA name, like Europe/Berlin or UTC")
	},
	"window": func(text string) (string, string) {
		if _, err := ParseWindow(text); err != nil {
			return err.Error(), "like `always`, `sat 02:00-04:00 UTC` or `mon-fri 22:00-02:00 Europe/Berlin`"
		}
		return "", ""
	},
}

func matching(pattern, why, hint string) func(string) (string, string) {
	re := regexp.MustCompile(pattern)
	return func(text string) (string, string) { return unless(re.MatchString(text), why, hint) }
}

func unless(ok bool, why, hint string) (string, string) {
	if ok {
		return "", ""
	}
	return why, hint
}

func loadZone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "local") {
		return nil, errors.New("what is local differs between controllers")
	}
	return time.LoadLocation(name)
}

var (
	span    = regexp.MustCompile(`^(\d+(\.\d+)?(ms|s|m|h|d|w))+$`)
	inDays  = regexp.MustCompile(`[\d.]+[dw]`)
	spelled = regexp.MustCompile(`^(\d+) *(s|m|h|d|w)[a-z]*$`)
)

// parseDuration reads Go's durations with `d` and `w` beside them; all of them
// are longer than zero and shorter than a year.
func parseDuration(text string) (d time.Duration, hint string, err error) {
	if m := spelled.FindStringSubmatch(text); m != nil && !span.MatchString(text) {
		return 0, "write " + m[1] + m[2], strconv.ErrSyntax
	}
	if !span.MatchString(text) {
		return 0, "write 30s, 5m, 24h or 7d", strconv.ErrSyntax
	}
	d, err = time.ParseDuration(inDays.ReplaceAllStringFunc(text, func(part string) string {
		n, _ := strconv.ParseFloat(part[:len(part)-1], 64)
		hours := map[byte]float64{'d': 24, 'w': 7 * 24}[part[len(part)-1]]
		return strconv.FormatFloat(n*hours, 'f', -1, 64) + "h"
	}))
	if err != nil || d <= 0 || d > 366*24*time.Hour {
		return 0, "longer than zero, at most a year", strconv.ErrRange
	}
	return d, "", nil
}

// brief is a duration without its zero parts.
func brief(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

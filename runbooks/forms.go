package runbooks

import (
	"net"
	"net/url"
	"path"
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
	"abs":      absolute,
	"rel":      relative,
	"hostport": hostPort,
	"address":  address,
	"url":      webAddress,
	"zone":     zone,
}

func matching(pattern, why, hint string) func(string) (string, string) {
	re := regexp.MustCompile(pattern)
	return func(text string) (string, string) {
		if re.MatchString(text) {
			return "", ""
		}
		return why, hint
	}
}

func absolute(text string) (string, string) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return "must be an absolute path", "write /" + text
	case path.Clean(text) != text:
		return "is not a plain path", "write " + path.Clean(text)
	}
	return "", ""
}

func relative(text string) (string, string) {
	file, _ := Optional(text)
	clean := path.Clean(file)
	switch {
	case strings.HasPrefix(text, "/"):
		return "must be a path within the project's folder", "files of a host stand under `host`"
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "lies outside the project's folder", ""
	}
	return "", ""
}

func hostPort(text string) (string, string) {
	host, port, err := net.SplitHostPort(text)
	if n, bad := strconv.Atoi(port); err != nil || host == "" || bad != nil || n < 1 || n > 65535 {
		return "is not host:port", "like localhost:5432"
	}
	return "", ""
}

func address(text string) (string, string) {
	_, port, err := net.SplitHostPort(text)
	switch n, bad := strconv.Atoi(port); {
	case strings.HasPrefix(text, "-") || strings.ContainsAny(text, " \t\n\"'/@$`;"):
		return "is not an address", "a host name, an IP address, address:port or an ssh_config alias"
	case err == nil && (bad != nil || n < 1 || n > 65535):
		return "has no valid port", ""
	}
	return "", ""
}

func webAddress(text string) (string, string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "is not a web address", "it begins with http:// or https://"
	case u.User != nil:
		return "carries a name or password", "secrets come from env, file or command"
	}
	return "", ""
}

func zone(text string) (string, string) {
	if _, err := loadZone(text); err != nil {
		return "is no time zone", "an IANA name, like Europe/Berlin or UTC"
	}
	return "", ""
}

func loadZone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "local") {
		return nil, strconv.ErrSyntax // what is local differs between controllers
	}
	return time.LoadLocation(name)
}

// plain is a text with a stand-in for what each host fills in.
func plain(text string) string { return fillHost(text, &Host{Name: "host", Address: "host"}) }

var (
	span     = regexp.MustCompile(`^(\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+$`)
	spanPart = regexp.MustCompile(`(\d+(?:\.\d+)?)(ms|s|m|h|d|w)`)
	spelled  = regexp.MustCompile(`^(\d+) *(s|m|h|d|w)[a-z]*$`)
	units    = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute,
		"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

const longest = 366 * 24 * time.Hour

// parseDuration reads Go's durations with `d` and `w` beside them; all of them
// are longer than zero and shorter than a year.
func parseDuration(text string) (d time.Duration, why, hint string) {
	if !span.MatchString(text) {
		return 0, "`" + text + "` is not a duration", spellOut(text)
	}
	total := 0.0
	for _, part := range spanPart.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseFloat(part[1], 64)
		total += n * float64(units[part[2]])
	}
	switch {
	case total > float64(longest):
		return 0, "`" + text + "` is longer than a year", ""
	case total < 1:
		return 0, "`" + text + "` must be longer than zero", ""
	}
	return time.Duration(total), "", ""
}

func spellOut(text string) string {
	if m := spelled.FindStringSubmatch(text); m != nil {
		return "write " + m[1] + m[2]
	}
	if _, err := strconv.Atoi(text); err == nil && !strings.HasPrefix(text, "-") {
		return "write " + text + "s or " + text + "m"
	}
	return "write 30s, 5m, 24h or 7d"
}

package runbooks

import (
	"cmp"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"
)

// subjects are the kinds of checks, and the keys that mean something with each.
var subjects = []struct {
	kind string
	also []string
}{
	{"command", []string{"from", "contains"}},
	{"unit", []string{"start", "snapshot_newer_than"}},
	{"tcp", []string{"from"}},
	{"http", []string{"from", "status", "headers", "contains"}},
	{"file", []string{"contains"}},
	{"mount", nil},
	{"disk", nil},
	{"subvolumes", nil},
	{"snapshot", []string{"snapshot_newer_than"}},
	{"backup", []string{"max_age"}},
	{"reboot", nil},
	{"fio", nil},
	{"metric", nil},
}

func (c *Check) fromText(s *source, n *node) {
	c.Name = n.text
	s.refs = append(s.refs, ref{what: "check", name: n.text, pos: n.pos, check: c})
}

func (c *Check) finish(s *source, n *node) {
	var kinds, names []string
	for _, k := range subjects {
		names = append(names, k.kind)
		if s.has(c, k.kind) {
			kinds = append(kinds, k.kind)
		}
	}
	switch len(kinds) {
	case 0:
		s.wrong(n.pos, "", "a check needs one of %s", either(names))
		return
	case 1:
		c.Kind = kinds[0]
	default:
		s.wrong(s.where(c, kinds[1]), "make two checks of it", "a check asks one question; `%s` and `%s` are two", kinds[0], kinds[1])
		return
	}
	c.Name = cmp.Or(c.Name, c.Kind+" "+c.subject(), c.Kind)
	c.strangers(s)
	c.values(s)
	c.times(s)
	c.condition(s)
}

// subject is the text after the kind's key.
func (c *Check) subject() string {
	v := reflect.ValueOf(c).Elem()
	for _, f := range fields(v.Type()) {
		if f.key != c.Kind {
			continue
		}
		switch value := v.FieldByIndex(f.index).Interface().(type) {
		case string:
			return value
		case []string:
			if len(value) == 3 && value[0] == "sh" && value[1] == "-c" {
				return value[2]
			}
			return strings.Join(value, " ")
		}
	}
	return ""
}

// strangers refuses keys that mean nothing with the kind.
func (c *Check) strangers(s *source) {
	var also []string
	for _, k := range subjects {
		if k.kind == c.Kind {
			also = k.also
		}
	}
	for _, key := range []string{"from", "status", "headers", "contains", "start", "snapshot_newer_than", "max_age"} {
		if s.has(c, key) && !slices.Contains(also, key) {
			s.wrong(s.where(c, key), "", "`%s` means nothing in a check of `%s`", key, c.Kind)
		}
	}
}

func (c *Check) values(s *source) {
	if s.sound(c, "reboot") && !c.Reboot {
		s.wrong(s.where(c, "reboot"), "", "`reboot` must be true")
	}
	if s.sound(c, c.Kind) && (c.Kind == "command" || c.Kind == "subvolumes") && len(c.Command)+len(c.Subvols) == 0 {
		s.wrong(s.where(c, c.Kind), "", "`%s` is an empty list", c.Kind)
	}
	if s.sound(c, "status") && (c.Status < 100 || c.Status > 599) {
		s.wrong(s.where(c, "status"), "", "`status` must be an HTTP status from 100 to 599, not %d", c.Status)
	}
	for name := range c.Headers {
		if slices.Contains([]string{"authorization", "cookie", "proxy-authorization", "x-api-key"}, strings.ToLower(name)) {
			s.wrongSecret(s.where(c, "headers"), "a `command` can read it from a file of the host", "the header `%s` is a secret and must not stand here", name)
		}
	}
	if c.From == "" {
		c.From = "host"
		if strings.Contains(c.HTTP+c.TCP, "${host.address}") {
			c.From = "controller"
		}
	}
}

// times fills in the defaults, so that every check ends, and refuses what
// cannot happen within the deadline.
func (c *Check) times(s *source) {
	c.Within = cmp.Or(c.Within, 30*time.Second)
	c.limit(s, "interval", &c.Interval, time.Second)
	c.limit(s, "timeout", &c.Timeout, 10*time.Second)
	if s.sound(c, "successes") && c.Successes < 1 {
		s.wrong(s.where(c, "successes"), "", "`successes` must be at least 1, not %d", c.Successes)
	}
	c.Successes = max(c.Successes, 1)
	if float64(c.Successes-1)*float64(c.Interval) >= float64(c.Within) && c.Successes > 1 {
		s.wrong(s.where(c, "successes"), "", "%d successes, one each %s, do not fit into `within` (%s)", c.Successes, brief(c.Interval), brief(c.Within))
	}
}

func (c *Check) limit(s *source, key string, d *time.Duration, usual time.Duration) {
	if *d > c.Within {
		s.wrong(s.where(c, key), "", "`%s` (%s) is longer than `within` (%s)", key, brief(*d), brief(c.Within))
	}
	if *d == 0 {
		*d = min(usual, c.Within)
	}
}

// brief is a duration without its zero parts.
func brief(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return text
}

// For is the check as it is made on a host: a copy with `${host}`, its name,
// `${host.address}` and `${host.system}` filled in.
func (c *Check) For(h *Host) *Check {
	own := *c
	own.Command, own.Subvols, own.Headers = slices.Clone(c.Command), slices.Clone(c.Subvols), maps.Clone(c.Headers)
	for _, text := range []*string{&own.Name, &own.Unit, &own.File, &own.Mount, &own.Disk, &own.Snapshot, &own.Contains} {
		*text = fillHost(*text, h)
	}
	inURL := *h
	if strings.Contains(h.hostname(), ":") {
		inURL.Address = "[" + h.hostname() + "]"
	}
	own.TCP, own.HTTP = fillHost(c.TCP, &inURL), fillHost(c.HTTP, &inURL)
	for _, list := range [][]string{own.Command, own.Subvols} {
		for i := range list {
			list[i] = fillHost(list[i], h)
		}
	}
	for key, value := range own.Headers {
		own.Headers[key] = fillHost(value, h)
	}
	return &own
}

func fillHost(text string, h *Host) string {
	return strings.NewReplacer("${host}", h.Name, "${host.name}", h.Name,
		"${host.address}", h.hostname(), "${host.system}", h.System).Replace(text)
}

// hostname is the address without a port; this machine's is localhost.
func (h *Host) hostname() string {
	if h.Address == "local" {
		return "localhost"
	}
	if name, _, err := net.SplitHostPort(h.Address); err == nil {
		return name
	}
	return h.Address
}

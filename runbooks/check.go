package runbooks

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

// rebootWithin is how long a machine may take to boot, firmware and all.
const rebootWithin = 5 * time.Minute

func (c *Check) finish(s *source, n *node) {
	switch c.Kind {
	case "": // said already
		return
	case "check":
		s.refs = append(s.refs, ref{what: "check", name: c.Use, pos: n.at("check"), check: c})
		for _, key := range []string{"within", "interval", "successes", "timeout"} {
			if n.get(key) != nil {
				s.wrong(n.at(key), "", "`%s` means nothing with `check`: deployer.yaml says it", key)
			}
		}
		c.Within = 0 // not known yet
		return
	}
	if c.Kind == "reboot" {
		c.Name = cmp.Or(c.Name, c.Kind)
		if n.get("within") == nil {
			c.Within = rebootWithin
		}
	}
	c.Name = cmp.Or(c.Name, strings.TrimSpace(c.Kind+" "+n.get(c.Kind).words()))
	if c.From == "" {
		c.From = "host"
		if strings.Contains(c.HTTP+c.TCP, "${host.address}") {
			c.From = "controller"
		}
	}
	if c.Successes > 1 && float64(c.Successes-1)*float64(c.Interval) >= float64(c.Within) {
		s.wrong(n.at("successes"), "", "%d successes, one each %s, do not fit into `within` (%s)", c.Successes, brief(c.Interval), brief(c.Within))
	}
	c.condition(s, n)
}

// words are the text of a node, or those of its list.
func (n *node) words() string {
	all := []string{n.text}
	for _, item := range n.items {
		all = append(all, item.text)
	}
	return strings.TrimSpace(strings.Join(all, " "))
}

// For is the check as it is made on a host: a copy with `${host}`, its name,
// `${host.address}` and `${host.system}` filled in.
func (c *Check) For(h *Host) *Check {
	own := *c
	own.Command, own.Subvols, own.Headers = slices.Clone(c.Command), slices.Clone(c.Subvols), maps.Clone(c.Headers)
	texts := []*string{&own.Name, &own.Unit, &own.File, &own.Mount, &own.Disk, &own.Snapshot, &own.Contains}
	for _, list := range [][]string{own.Command, own.Subvols} {
		for i := range list {
			texts = append(texts, &list[i])
		}
	}
	for _, text := range texts {
		*text = fillHost(*text, h)
	}
	for key, value := range own.Headers {
		own.Headers[key] = fillHost(value, h)
	}
	inURL := *h
	if strings.Contains(h.hostname(), ":") {
		inURL.Address = "[" + h.hostname() + "]"
	}
	own.TCP, own.HTTP = fillHost(c.TCP, &inURL), fillHost(c.HTTP, &inURL)
	return &own
}

func fillHost(text string, h *Host) string {
	return strings.NewReplacer("${host}", h.Name, "${host.name}", h.Name,
		"${host.address}", h.hostname(), "${host.system}", h.System).Replace(text)
}

// plain is a text with a stand-in for what each host fills in.
func plain(text string) string { return fillHost(text, &Host{Name: "host", Address: "host"}) }

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

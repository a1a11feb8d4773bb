package ssh

import (
	"net"
	"os"
	"os/user"
	"strings"
)

// read takes the lines of ssh -G.
func (t *target) read(lines string) {
	t.identities, t.certificates = nil, nil
	for line := range strings.Lines(lines) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value != "" {
			t.set(key, value)
		}
	}
	t.agent, t.keyAlias = t.socket(t.agent), strings.ToLower(t.keyAlias)
	t.identities, t.certificates = t.expandAll(t.identities), t.expandAll(t.certificates)
	t.userKnown, t.globalKnown = t.expandAll(t.userKnown), t.expandAll(t.globalKnown)
}

func (t *target) set(key, value string) {
	switch key {
	case "identityfile":
		t.identities = append(t.identities, value)
	case "certificatefile":
		t.certificates = append(t.certificates, value)
	case "identitiesonly":
		t.identitiesOnly = value == "yes"
	case "userknownhostsfile":
		t.userKnown = strings.Fields(value)
	case "globalknownhostsfile":
		t.globalKnown = strings.Fields(value)
	case "proxyjump":
		t.jumps = strings.Split(value, ",")
	}
	if text := map[string]*string{
		"hostname": &t.host, "port": &t.port, "user": &t.user, "hostkeyalias": &t.keyAlias,
		"identityagent": &t.agent, "proxycommand": &t.proxyCommand,
	}[key]; text != nil {
		*text = value
	}
}

// socket is what IdentityAgent means.
func (t *target) socket(value string) string {
	switch {
	case value == "none":
		return ""
	case value == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(value, "$"):
		return os.Getenv(strings.Trim(value, "${}"))
	}
	return t.expand(value)
}

func (t *target) expandAll(paths []string) []string {
	var out []string
	for _, p := range paths {
		if p != "none" {
			out = append(out, t.expand(p))
		}
	}
	return out
}

// expand knows the tokens that ssh -G leaves in file names.
func (t *target) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = home() + "/" + rest
	}
	if !strings.Contains(path, "%") {
		return path
	}
	me := ""
	if u, err := user.Current(); err == nil {
		me = u.Username
	}
	return strings.NewReplacer("%%", "%", "%d", home(), "%h", t.host, "%n", t.address,
		"%p", t.port, "%r", t.user, "%u", me).Replace(path)
}

// addr is where to dial.
func (t *target) addr() string { return net.JoinHostPort(t.host, t.port) }

// known is the address that known_hosts is asked for.
func (t *target) known() string {
	if t.keyAlias != "" {
		return net.JoinHostPort(t.keyAlias, "22")
	}
	return t.addr()
}

// hop is the configuration for a jump host written as [user@]host[:port].
func hop(c Config, spec string) Config {
	c.User, c.Port, c.Key = "", 0, ""
	spec = strings.TrimPrefix(spec, "ssh://")
	if at := strings.LastIndex(spec, "@"); at >= 0 {
		c.User, spec = spec[:at], spec[at+1:]
	}
	if h, p, err := net.SplitHostPort(spec); err == nil {
		c.Port, _ = net.LookupPort("tcp", p)
		spec = h
	}
	c.Address = strings.Trim(spec, "[]")
	return c
}

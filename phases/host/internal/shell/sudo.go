package shell

import (
	"errors"
	"regexp"

	"github.com/hbohlen/deployer/phases/host"
)

// refusal is what sudo and sudo-rs say when they do not run a command.
var refusal = regexp.MustCompile(`(?m)^(sudo: (a password|a terminal|interactive authentication) is required.*` +
	`|sudo: .*you must have a tty.*|(/bin/sh|sh): .*sudo: .*not found|.* is not in the sudoers file.*` +
	`|(Sorry, user|I'm sorry) .*)$`)

// sudo tells a refusal by sudo from a failure of the command behind it.
func (m *Machine) sudo(cmd host.Command, code int, stderr []byte) error {
	if !cmd.Privileged || m.root || (code != 1 && code != 127) {
		return nil
	}
	said := refusal.Find(stderr)
	if said == nil {
		return nil
	}
	return m.Fail(host.NoSudo, errors.New(string(said)),
		"as root:  echo '"+m.user+" ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/deployer",
		`NixOS:    security.sudo.extraRules = [{ users = ["`+m.user+`"]; commands = [{ command = "/nix/var/deployer/agent"; options = ["NOPASSWD"]; }]; }];`)
}

package ssh

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// Config says which host to reach, and how.
type Config struct {
	Name    string // the host's name in deployer.yaml
	Address string // name, address or alias of ssh_config
	User    string // empty: as ssh would
	Port    int    // 0: as ssh would
	Key     string // private key file to try first

	// AcceptNew writes the key of a host that known_hosts does not know into
	// it. A key that differs from a known one is never accepted.
	AcceptNew bool

	ConfigFile string // instead of ~/.ssh/config, as ssh -F
	KnownHosts string // instead of the user's known_hosts files

	// patience is how long a host may say nothing, and a connection take to be
	// made, before it is given up; other than its default in tests only.
	patience time.Duration
}

// patience is less than the 10 s in which a dead connection has to be noticed.
const patience = 9 * time.Second

func (c Config) limit() time.Duration { return cmp.Or(c.patience, patience) }

// target is one hop as ssh would reach it.
type target struct {
	address        string // as it was asked for
	host, port     string
	user           string
	keyAlias       string // the name known_hosts knows it by
	identities     []string
	certificates   []string
	identitiesOnly bool
	agent          string // socket; empty: none
	userKnown      []string
	globalKnown    []string
	jumps          []string
	proxyCommand   string
}

// resolve asks ssh itself, which alone gets Match, Include and tokens right.
func resolve(ctx context.Context, c Config) (*target, error) {
	if c.Address == "" || strings.HasPrefix(c.Address, "-") || strings.ContainsAny(c.Address, " \t\n") {
		return nil, fmt.Errorf("%q is no address", c.Address)
	}
	t := defaults(c)
	args := append([]string{"-G"}, flags(c)...)
	cmd := exec.CommandContext(ctx, "ssh", append(args, "--", c.Address)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case err == nil:
		t.read(string(out))
	case cmd.ProcessState != nil: // ssh is there and refuses
		return nil, fmt.Errorf("ssh cannot read its configuration: %s", strings.TrimSpace(said.String()))
	}
	if c.Key != "" {
		t.identities = append([]string{c.Key}, t.identities...)
	}
	if c.KnownHosts != "" {
		t.userKnown = []string{c.KnownHosts}
	}
	return t, ctx.Err()
}

func flags(c Config) []string {
	var args []string
	if c.ConfigFile != "" {
		args = append(args, "-F", c.ConfigFile)
	}
	if c.Port != 0 {
		args = append(args, "-p", fmt.Sprint(c.Port))
	}
	if c.User != "" {
		args = append(args, "-l", c.User)
	}
	return args
}

// defaults is what is left without an ssh client to ask.
func defaults(c Config) *target {
	t := &target{address: c.Address, host: strings.ToLower(c.Address), port: "22", user: c.User, agent: os.Getenv("SSH_AUTH_SOCK")}
	if c.Port != 0 {
		t.port = fmt.Sprint(c.Port)
	}
	if me, err := user.Current(); err == nil && t.user == "" {
		t.user = me.Username
	}
	dir := filepath.Join(home(), ".ssh")
	t.userKnown = []string{filepath.Join(dir, "known_hosts")}
	t.globalKnown = []string{"/etc/ssh/ssh_known_hosts"}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.identities = append(t.identities, filepath.Join(dir, "id_"+kind))
	}
	return t
}

func home() string {
	dir, _ := os.UserHomeDir()
	return dir
}

// Command deployer runs change plans against NixOS hosts.
package main

import (
	"os"
	"path/filepath"
	"regexp"

	"github.com/hbohlen/deployer/cmd/internal/cli"
	"github.com/hbohlen/deployer/phases/agent"
)

// digest is the name under which a launcher keeps agents: a program of that
// name is the agent.
var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func main() {
	if digest.MatchString(filepath.Base(os.Args[0])) {
		os.Exit(agent.Main(os.Args[1:]))
	}
	os.Exit(cli.Main(os.Args[1:]))
}

// Command deployer-agent is the part of deployer that runs on hosts, on its
// own: small and static.
package main

import (
	"os"

	"github.com/hbohlen/deployer/phases/agent"
)

func main() { os.Exit(agent.Main(os.Args[1:])) }

package runbooks

import _ "embed"

// HostModule is the NixOS module of hosts that are deployed to. It reads the
// agent's launcher from a file beside it, LauncherFile.
//
//go:embed modules/deployer-host.nix
var HostModule []byte

// The names under which a project keeps the module and what it reads.
const (
	HostModuleFile = "deployer-host.nix"
	LauncherFile   = "deployer-launcher.sh"
)

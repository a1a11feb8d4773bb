package agent

import _ "embed"

// Dir is the agent's home on a host: root-owned, mode 0700, never ephemeral,
// on Btrfs a subvolume of its own that is in no snapshot set.
const Dir = "/nix/var/deployer"

// LauncherPath is the one program that the deploy user's sudo rule names.
const LauncherPath = Dir + "/agent"

// ModuleUnit is what a system has, in its toplevel, whose guard outlives a
// reboot: the unit of deployer-host.nix, enabled.
const ModuleUnit = "etc/systemd/system/multi-user.target.wants/deployer-resume.service"

// Launcher is the content of LauncherPath.
//
//go:embed launcher.sh
var Launcher string

// ExitNotInstalled is the launcher's exit code when the wanted agent is not on
// the host yet.
const ExitNotInstalled = 67

// InstallLauncher is what root types once on a host without deployer-host.nix,
// fed with Launcher on standard input.
const InstallLauncher = `set -eu; umask 077; d=` + Dir + `
[ -d $d ] || btrfs -q subvolume create $d 2>/dev/null || mkdir -p $d
chmod 0700 $d; cat > $d/.agent.new; chmod 0700 $d/.agent.new; sync $d/.agent.new; mv -f $d/.agent.new $d/agent; sync $d`

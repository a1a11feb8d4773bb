package labtest

import (
	"strings"
	"testing"
)

// Facts is what a deployment may change on a host, to compare before and after.
type Facts struct {
	System      string            // what /run/current-system is
	Booted      string            // what /run/booted-system is
	Profile     string            // target of the system profile's link
	Generations string            // links of all profiles, with their targets
	Loader      string            // bytes of loader.conf or grub.cfg
	Units       string            // active units, one a line
	Sums        map[string]string // sha256 of the files asked for, "" where there is none
}

const factsScript = `
readlink -f /run/current-system; echo '---8<---'
readlink -f /run/booted-system; echo '---8<---'
readlink /nix/var/nix/profiles/system; echo '---8<---'
cd /nix/var/nix/profiles; for l in system* system-profiles/*; do [ ! -L "$l" ] || echo "$l -> $(readlink "$l")"; done; echo '---8<---'
cat /boot/loader/loader.conf /boot/grub/grub.cfg 2>/dev/null; echo '---8<---'
systemctl list-units --state=active --plain --no-legend --type=service,timer,socket | awk '$1 !~ /^run-|^user|@/ {print $1}' | sort; echo '---8<---'
`

// Facts looks at the host from inside, so that it works with the network cut.
func (h Host) Facts(t testing.TB, files ...string) Facts {
	t.Helper()
	script := factsScript
	for _, f := range files {
		script += "sha256sum '" + f + "' 2>/dev/null | cut -d' ' -f1; echo '---8<---'\n"
	}
	parts := strings.Split(h.Enter(t, script), "---8<---")
	for i := range parts {
		parts[i] = strings.TrimPrefix(parts[i], "\n")
	}
	facts := Facts{
		System: strings.TrimSpace(parts[0]), Booted: strings.TrimSpace(parts[1]), Profile: strings.TrimSpace(parts[2]),
		Generations: parts[3], Loader: parts[4], Units: parts[5], Sums: map[string]string{},
	}
	for i, f := range files {
		facts.Sums[f] = strings.TrimSpace(parts[6+i])
	}
	return facts
}

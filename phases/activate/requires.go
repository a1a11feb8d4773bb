package activate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/state"
)

// Requires finds what a deploy user trips over, before anything is built.
func (lock) Requires(ctx context.Context, env *phases.Env) []phases.Finding {
	l, f := env.Lane, env.Lane.Seen
	var found []phases.Finding
	add := func(what string, hint ...string) {
		found = append(found, phases.Finding{Host: l.Name, What: what, Hint: hint})
	}
	to := l.Conf.Address
	switch {
	case f.Nix == "":
		add("there is no Nix on the host", "ssh "+to+" nix --version")
		return found
	case f.OS != "nixos":
		add(fmt.Sprintf("the host is %s, not NixOS", f.OS), "ssh "+to+" cat /etc/os-release")
		return found
	case f.System == "":
		add("the host has no /run/current-system", "ssh "+to+" readlink -f /run/current-system")
	}
	switch {
	case f.Root:
	case f.Sudo != "" && !strings.HasSuffix(f.Sudo, agent.LauncherPath+": command not found"):
		add("the deploy user cannot run the agent: "+f.Sudo, phases.ByRoot(f.User, to)...)
	case !f.Launcher:
		add("there is no launcher at "+agent.LauncherPath, phases.ByRoot(f.User, to)...)
	}
	if f.OpenRun != "" && !settled(env, f.OpenRun) {
		add("run "+f.OpenRun+" was never finished on this host", agent.WaysOut(f.OpenRun)...)
	}
	if f.SwitchLocked {
		add("another switch-to-configuration is running", "ssh "+to+" fuser -v /run/nixos/switch-to-configuration.lock")
	}
	return found
}

// settled tells whether the record here says that a run has ended on a host,
// which only did not hear of it: the lock step tells it.
func settled(env *phases.Env, run string) bool {
	if env.Past == nil {
		return false
	}
	was := env.Past(run, env.Lane.Name)
	return was == state.Committed || was == state.Restored || was == state.Untouched
}

// Requires finds a user who may not import unsigned paths.
func (transfer) Requires(ctx context.Context, env *phases.Env) []phases.Finding {
	l, f := env.Lane, env.Lane.Seen
	if _, remote := l.Host.(nix.Target); !remote || f.Root || f.Nix == "" || f.Trusted == nil || *f.Trusted {
		return nil
	}
	if env.Nix.SignsFor(ctx, f.TrustedKeys) {
		return nil
	}
	return []phases.Finding{{Host: l.Name,
		What: fmt.Sprintf("the Nix daemon does not trust %s, so it refuses to copy paths that are not signed", f.User),
		Hint: []string{
			"# in the host's configuration: nix.settings.trusted-users = [ \"root\" \"" + f.User + "\" ];",
			"# or sign on this machine: nix key generate-secret --key-name deployer-1 > key.sec, `secret-key-files` in nix.conf, and the public key in the host's nix.settings.trusted-public-keys",
		}}}
}

// copyTries is how often a copy is begun whose connection goes. What came over
// before that stays on the host.
const copyTries = 3

// linkWords are what Nix and ssh say when a connection goes, or cannot be made.
var linkWords = []string{"cannot connect to", "failed to start SSH connection", "unexpected end-of-file", "Broken pipe", "Connection reset", "Connection closed", "timed out"}

// cutShort has a copy made again that ended with its connection, once the host
// answers again.
func cutShort(ctx context.Context, env *phases.Env, err error) error {
	f := phases.AsFailure(err)
	link := func(line string) bool {
		return slices.ContainsFunc(linkWords, func(w string) bool { return strings.Contains(line, w) })
	}
	if env.Attempt >= copyTries || !slices.ContainsFunc(f.Output, link) || env.Lane.Call(ctx, agent.OpJournal, nil, nil) != nil {
		return err
	}
	return phases.Retry{After: time.Second, Reason: "the connection went: " + f.Error()}
}

// copyFailure turns Nix's words for a refused or interrupted copy into ours.
func copyFailure(err error, env *phases.Env) error {
	var ne *nix.Error
	if !errors.As(err, &ne) {
		return err
	}
	f := &phases.Failure{Exit: phases.ExitFailed, Err: fmt.Errorf("cannot copy the system: %w", err), Output: ne.Output}
	all := strings.Join(ne.Output, "\n")
	switch {
	case strings.Contains(all, "lacks a signature"), strings.Contains(all, "unexpected end-of-file") && !env.Lane.Seen.Root:
		f.Hint = []string{"# in the host's configuration: nix.settings.trusted-users = [ \"root\" \"" + env.Lane.Seen.User + "\" ];"}
	case strings.Contains(all, "No space left"), strings.Contains(all, "disk I/O error"):
		f.Exit, f.Hint = phases.ExitPrecondition, []string{"ssh " + env.Lane.Conf.Address + " df -h /nix"}
	}
	return f
}

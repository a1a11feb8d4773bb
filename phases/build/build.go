// Package build makes the systems that a run ships: every .nix file parses,
// each system is evaluated and built once, the result is pinned so that what
// was planned is what runs.
//
// On the controller, planning builds: the closure difference that reviewers
// read is the real one. With `on: host` the path is known from evaluation, and
// the host builds it in this phase.
package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
)

// Compile makes a step that parses, and one for each host's system.
func Compile(in *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	steps := []phases.Step{parse{}}
	for _, name := range p.Build.Hosts {
		on := p.Build.On
		if h := in.Project.Hosts[name]; h != nil && h.Build != "" {
			on = h.Build
		}
		steps = append(steps, &system{On: phases.On{Lane: name, Kind: phases.Idempotent}, onHost: on == "host"})
	}
	return steps, nil
}

// parse checks the syntax of every .nix file of the project.
type parse struct{}

func (parse) Name() string { return "parse" }

func (s parse) Plan(ctx context.Context, env *phases.Env) (phases.Change, error) {
	n, err := s.all(ctx, env)
	return phases.Change{Text: fmt.Sprintf("parse %d .nix files", n)}, err
}

func (s parse) Do(ctx context.Context, env *phases.Env) error {
	n, err := s.all(ctx, env)
	env.Facts(map[string]int{"files": n})
	return err
}

func (parse) all(ctx context.Context, env *phases.Env) (int, error) {
	files, err := nix.Sources(env.Project.Dir)
	if err != nil {
		return 0, err
	}
	return len(files), nixFailure(env.Nix.Parse(ctx, files), "nix-instantiate --parse FILE")
}

// Requires finds files that the flake would not see.
func (parse) Requires(ctx context.Context, env *phases.Env) []phases.Finding {
	f := env.Project.Flake
	if f != "." && !strings.HasPrefix(f, "./") {
		return nil
	}
	git := []string{"git", "-C", env.Project.Dir, "ls-files", "--others", "--exclude-standard", "--", "*.nix", "flake.lock"}
	res, err := env.Controller.Run(ctx, host.Command{Args: git})
	if err != nil || res.Code != 0 || len(res.Stdout) == 0 {
		return nil
	}
	files := strings.Fields(string(res.Stdout))
	return []phases.Finding{{
		What: "git does not track these files, so the flake does not see them: " + strings.Join(files, ", "),
		Hint: []string{"git -C " + env.Project.Dir + " add -N " + strings.Join(files, " ")},
	}}
}

// system evaluates and builds one host's system.
type system struct {
	phases.On
	onHost bool
}

func (*system) Name() string { return "system" }

func (s *system) Plan(ctx context.Context, env *phases.Env) (phases.Change, error) {
	sys, err := s.evaluate(ctx, env)
	if want := env.Lane.Seen.Arch; err == nil && sys.Arch() != "" && sys.Arch() != want {
		err = phases.Precondition(fmt.Errorf("%s is a %s system, the host is %s", env.Lane.Conf.System, sys.Arch(), want))
	}
	if err != nil {
		return phases.Change{}, err
	}
	env.Lane.To = sys
	if env.Lane.Unchanged() {
		return phases.Change{Text: env.Lane.Name + " runs " + phases.ShortPath(sys.Out) + " already", Nothing: true}, nil
	}
	if s.onHost {
		return phases.Change{Text: "build " + phases.ShortPath(sys.Out) + " on " + env.Lane.Name, Unknown: true}, nil
	}
	env.Say("building " + phases.ShortPath(sys.Out))
	if err := env.Nix.Build(ctx, sys); err != nil {
		return phases.Change{}, nixFailure(err, "nix build "+env.Project.Flake+"#nixosConfigurations."+env.Lane.Conf.System+".config.system.build.toplevel")
	}
	return phases.Change{Text: phases.ShortPath(sys.Out)}, s.fits(ctx, env)
}

// evaluate reuses what an earlier lane with the same system found.
func (s *system) evaluate(ctx context.Context, env *phases.Env) (nix.System, error) {
	for _, l := range env.Lanes {
		if l.Conf.System == env.Lane.Conf.System && l.To.Out != "" {
			return l.To, nil
		}
	}
	env.Say("evaluating " + env.Lane.Conf.System)
	sys, err := env.Nix.Eval(ctx, env.Project.Flake, env.Lane.Conf.System)
	if err != nil {
		return sys, nixFailure(err, "nix eval "+env.Project.Flake+"#nixosConfigurations."+env.Lane.Conf.System+".config.system.build.toplevel.drvPath")
	}
	return sys, nil
}

// fits compares what would be copied with the room on the host.
func (s *system) fits(ctx context.Context, env *phases.Env) error {
	old := env.Lane.Surveyed(ctx).Closure
	c, err := env.Nix.Closure(ctx, env.Lane.To.Out)
	if err != nil {
		return err
	}
	return phases.Refuse(append(
		room(env.Lane, "/nix", uint64(c.Missing(old)), "nix-collect-garbage"),
		bootRoom(env.Lane)...))
}

// spare is what must stay free beside what a deployment needs, in bytes.
const spare = 32 << 20

func room(l *phases.Lane, path string, need uint64, mend string) []phases.Finding {
	for _, s := range l.Seen.Space {
		if s.Path == path && s.Free < need+spare {
			return []phases.Finding{{Host: l.Name,
				What: fmt.Sprintf("%s has %d MiB free; the new system needs %d MiB, and %d MiB must stay free", path, s.Free>>20, need>>20, spare>>20),
				Hint: []string{"ssh " + l.Conf.Address + " " + mend}}}
		}
	}
	return nil
}

// bootSpare is what must stay free on /boot for loader files, in bytes.
const bootSpare = 256 << 10

func bootRoom(l *phases.Lane) []phases.Finding {
	need := uint64(nix.BootBytes(l.Survey.Booted, l.To.Out)) + bootSpare
	for _, s := range l.Seen.Space {
		if s.Path == "/boot" && s.Free < need {
			return []phases.Finding{{Host: l.Name,
				What: fmt.Sprintf("/boot has %d KiB free, a boot entry of the new system needs %d KiB", s.Free>>10, need>>10),
				Hint: []string{"ssh " + l.Conf.Address + " 'nix-env -p /nix/var/nix/profiles/system --delete-generations +3 && /run/current-system/bin/switch-to-configuration boot'"}}}
		}
	}
	return nil
}

func (s *system) Do(ctx context.Context, env *phases.Env) error {
	to := env.Lane.To
	env.Facts(map[string]string{"system": to.Out, "drv": to.Drv, "revision": env.Revision})
	if env.Lane.Unchanged() {
		return phases.Skip("the host runs it already")
	}
	if s.onHost {
		return s.buildThere(ctx, env)
	}
	return nixFailure(env.Nix.Keep(ctx, to.Out, filepath.Join(env.Dir.Path, "result-"+env.Lane.Name)), "nix-store --realise "+to.Out)
}

// buildThere copies the derivation and builds it as a job on the host.
func (s *system) buildThere(ctx context.Context, env *phases.Env) error {
	if env.Lane.To.Drv == "" {
		return phases.Fail(fmt.Errorf("cannot build %s on the host: only a flake can be built there", env.Lane.To.Out))
	}
	if err := env.Nix.CopyDerivation(ctx, env.Lane.To.Drv, env.Lane.Host); err != nil {
		return nixFailure(err, "")
	}
	var res agent.ExecResult
	args := []string{"nix-store", "--realise", env.Lane.To.Drv, "--add-root", "/nix/var/nix/gcroots/deployer-" + env.ID + "-build"}
	err := env.Lane.Call(ctx, agent.OpExec, agent.ExecArgs{Args: args, Timeout: buildTimeout}, &res)
	if err == nil && res.Code != 0 {
		err = &phases.Failure{Exit: phases.ExitFailed, Err: fmt.Errorf("the build on the host ended with exit code %d", res.Code), Output: tail(string(res.Stderr), 20)}
	}
	return err
}

func tail(s string, n int) []string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}

// nixFailure shows what Nix printed last, and how to see all of it.
func nixFailure(err error, see string) error {
	var ne *nix.Error
	if !errors.As(err, &ne) {
		return err
	}
	f := &phases.Failure{Exit: phases.ExitFailed, Err: err, Output: ne.Output}
	if see != "" {
		f.Hint = []string{see}
	}
	return f
}

// buildTimeout bounds a build on a host.
const buildTimeout = 6 * time.Hour

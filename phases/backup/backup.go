// Package backup keeps a copy of declared configuration files, with digests:
// those of the repository in the run's folder, those of a host also in its
// recipe, so that a rollback puts them back byte for byte.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Compile makes a step for the repository's files, and one for each host's.
func Compile(_ *phases.Inputs, p *runbooks.Phase) ([]phases.Step, error) {
	steps := []phases.Step{repository{files: p.Backup.Files}}
	for _, name := range sorted(p.Backup.Host) {
		steps = append(steps, hostFiles{On: phases.On{Lane: name, Kind: phases.Idempotent}, paths: p.Backup.Host[name]})
	}
	return steps, nil
}

func sorted(m map[string][]string) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// repository copies files of the project, and notes the state of its checkout.
type repository struct{ files []string }

func (repository) Name() string { return "repository" }

func (repository) Class() phases.Class { return phases.Idempotent }

func (r repository) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	files, err := r.find(env.Project.Dir)
	if err != nil {
		return phases.Change{}, err
	}
	return phases.Change{Text: "keep a copy of " + count(len(files), "file") + " with digests, and the checkout's state", Detail: files}, nil
}

// kept is the step's facts: path → sha256, and what git says of the checkout.
type kept struct {
	Files    map[string]string `json:"files"`
	Revision string            `json:"revision,omitempty"`
	Changes  []string          `json:"changes,omitempty"` // uncommitted
}

func (r repository) Do(ctx context.Context, env *phases.Env) error {
	files, err := r.find(env.Project.Dir)
	if err != nil {
		return err
	}
	k := kept{Files: map[string]string{}}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(env.Project.Dir, f))
		if err != nil {
			return err
		}
		if k.Files[f], err = save(env.Dir, "repository", f, b); err != nil {
			return err
		}
	}
	k.Revision, k.Changes = checkout(ctx, env)
	env.Facts(k)
	return nil
}

// find resolves the declared files: `name?` may match nothing, the others must exist.
func (r repository) find(dir string) ([]string, error) {
	var files []string
	for _, name := range r.files {
		pattern, optional := runbooks.Optional(name)
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("cannot read the pattern %q: %w", pattern, err)
		}
		if len(found) == 0 && !optional {
			return nil, phases.Fail(fmt.Errorf("cannot back up %s: there is no such file in %s", pattern, dir), "ls "+dir)
		}
		for _, f := range found {
			rel, err := filepath.Rel(dir, f)
			if err != nil {
				return nil, err
			}
			files = append(files, rel)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

func checkout(ctx context.Context, env *phases.Env) (revision string, changes []string) {
	git := func(args ...string) string {
		res, err := env.Controller.Run(ctx, host.Command{Args: append([]string{"git", "-C", env.Project.Dir}, args...)})
		if err != nil || res.Code != 0 {
			return ""
		}
		return strings.TrimRight(string(res.Stdout), "\n")
	}
	revision = git("rev-parse", "HEAD")
	if s := git("status", "--porcelain"); s != "" {
		changes = strings.Split(s, "\n")
	}
	return revision, changes
}

// save writes a copy into the run's folder and returns its digest.
func save(dir *state.RunDir, from, name string, content []byte) (string, error) {
	path := filepath.Join(dir.Path, "files", from, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), state.WriteFile(path, content)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// hostFiles copies files of a host.
type hostFiles struct {
	phases.On
	paths []string
}

func (hostFiles) Name() string { return "files" }

func (h hostFiles) Plan(context.Context, *phases.Env) (phases.Change, error) {
	return phases.Change{Text: "keep a copy of " + count(len(h.paths), "file") + "; a rollback puts them back", Detail: h.paths}, nil
}

func (h hostFiles) Do(ctx context.Context, env *phases.Env) error {
	env.Lane.Files = nil
	digests := map[string]string{}
	for paths := slices.Clone(h.paths); len(paths) > 0; {
		path := paths[0]
		paths = paths[1:]
		if _, twice := digests[path]; twice {
			continue
		}
		var f agent.File
		if err := env.Lane.Call(ctx, agent.OpFileGet, agent.FileRef{Path: path, Max: 4 << 20}, &f); err != nil {
			return err
		}
		if f.Target != "" && !strings.HasPrefix(f.Target, "/nix/store/") { // a link, and what it leads to
			paths = append(paths, f.Target)
		}
		if f.Digest != "" {
			if _, err := save(env.Dir, env.Lane.Name, path, f.Content); err != nil {
				return err
			}
		}
		env.Lane.Files = append(env.Lane.Files, f)
		digests[path] = f.Digest
	}
	env.Facts(digests)
	return nil
}

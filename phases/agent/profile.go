package agent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// SystemProfile is the profile that a NixOS host boots.
const SystemProfile = "/nix/var/nix/profiles/system"

// profile reads a profile's links: P → P-N-link → store path.
func (a *agent) profile(path string) Profile {
	p := Profile{Path: path, System: a.resolve(path)}
	if link, err := os.Readlink(a.host(path)); err == nil {
		p.Generation = generation(filepath.Base(path), filepath.Base(link))
	}
	entries, _ := os.ReadDir(a.host(filepath.Dir(path)))
	for _, e := range entries {
		p.add(e.Name(), func() string { return a.resolve(filepath.Join(filepath.Dir(path), e.Name())) })
	}
	return p
}

// add puts a generation in its place, if the name is one's.
func (p *Profile) add(name string, system func() string) {
	n := generation(filepath.Base(p.Path), name)
	if n == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(p.Generations, n, func(g Generation, n int) int { return g.Number - n })
	p.Generations = slices.Insert(p.Generations, at, Generation{n, system()})
}

// generation is N of a link's name PROFILE-N-link, else 0.
func generation(profile, link string) int {
	rest, ok := strings.CutPrefix(link, profile+"-")
	number, is := strings.CutSuffix(rest, "-link")
	if !ok || !is {
		return 0
	}
	n, _ := strconv.Atoi(number)
	return n
}

func (p Profile) at(number int) string {
	for _, g := range p.Generations {
		if g.Number == number {
			return g.System
		}
	}
	return ""
}

// doProfile sets the profile by number, if that number is the wanted system,
// else by path. Never by "--rollback", which means the next lower number.
func (a *agent) doProfile(ctx context.Context, _ string, op Operation) (effect, error) {
	path := cmp.Or(op.Profile, SystemProfile)
	p := a.profile(path)
	want := cmp.Or(op.System, p.at(op.Generation))
	if want == "" {
		return effect{}, fmt.Errorf("%s has no generation %d", path, op.Generation)
	}
	e := effect{already: p.System == want && (op.Generation == 0 || op.Generation == p.Generation || p.at(op.Generation) != want)}
	if !e.already {
		if err := a.setProfile(ctx, p, op.Generation, want); err != nil {
			return effect{}, err
		}
	}
	dropped, err := a.dropGeneration(ctx, path, op)
	e.already = e.already && !dropped
	return e, err
}

func (a *agent) setProfile(ctx context.Context, p Profile, number int, want string) error {
	args := []string{"--set", want}
	if number > 0 && p.at(number) == want {
		args = []string{"--switch-generation", strconv.Itoa(number)}
	}
	if err := a.nixEnv(ctx, want, p.Path, args...); err != nil {
		return err
	}
	if is := a.resolve(p.Path); is != want {
		return fmt.Errorf("nix-env said it was done, but %s is %s, not %s", p.Path, is, want)
	}
	return nil
}

// dropGeneration removes a generation only if it is what it is meant to be and
// not in use: the number may have been given to another system since.
func (a *agent) dropGeneration(ctx context.Context, path string, op Operation) (bool, error) {
	p := a.profile(path)
	if op.Drop == 0 || op.DropSystem == "" || p.at(op.Drop) != op.DropSystem || p.Generation == op.Drop {
		return false, nil
	}
	if err := a.nixEnv(ctx, p.System, path, "--delete-generations", strconv.Itoa(op.Drop)); err != nil {
		return false, err
	}
	if a.profile(path).at(op.Drop) != "" {
		return false, fmt.Errorf("nix-env said it was done, but %s still has generation %d", path, op.Drop)
	}
	return true, nil
}

// nixEnv runs the running system's nix-env, since an older or newer one may
// not know the store's database; else the wanted system's own.
func (a *agent) nixEnv(ctx context.Context, system, profile string, args ...string) error {
	program := "nix-env"
	for _, top := range []string{"/run/current-system", system} {
		if p := a.host(top) + "/sw/bin/nix-env"; exists(p) {
			program = p
			break
		}
	}
	exit, err := a.program(ctx, append([]string{program, "--profile", a.host(profile)}, args...)...)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return &problem{exit.Code, fmt.Sprintf("nix-env %s: exit %d: %s", strings.Join(args, " "), exit.Code, lastLine(exit.Output))}
	}
	return a.syncDir(filepath.Dir(a.host(profile))) // nix-env renames links without that
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lexists does not follow a link: one that leads nowhere is there.
func lexists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

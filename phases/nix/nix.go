package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// Nix runs Nix commands on the controller.
type Nix struct {
	Host host.Runner
	Dir  string    // the project's folder
	Log  io.Writer // Nix's own progress; nil: kept for the error only
}

// System is one evaluated system.
type System struct {
	Attr string // nixosConfigurations.<attr>, "" for a store path
	Drv  string // "" where no derivation is known
	Out  string // the toplevel's store path
	Kind string // x86_64-linux; "" where it is not known
}

// Arch is the machine that the system is for, as `uname -m` names it.
func (s System) Arch() string {
	arch, _, _ := strings.Cut(s.Kind, "-")
	return arch
}

// Error is a Nix command that failed: Output is what it printed last.
type Error struct {
	Args   []string
	Code   int
	Output []string
}

func (e *Error) Error() string {
	for i := len(e.Output) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(e.Output[i]); strings.HasPrefix(l, "error:") && len(l) > len("error:") {
			return strings.TrimSpace(strings.TrimPrefix(l, "error:"))
		}
	}
	return fmt.Sprintf("`%s` ended with exit code %d", strings.Join(e.Args, " "), e.Code)
}

const features = "nix-command flakes"

func (n *Nix) run(ctx context.Context, args ...string) ([]byte, error) {
	res, err := n.exec(ctx, nil, args...)
	return res, err
}

func (n *Nix) exec(ctx context.Context, env []string, args ...string) ([]byte, error) {
	var errs bytes.Buffer
	cmd := host.Command{Args: args, Dir: n.Dir, Env: env, Stderr: tee(&errs, n.Log)}
	res, err := n.Host.Run(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	if res.Code != 0 {
		return nil, &Error{Args: args, Code: res.Code, Output: lastLines(errs.String(), 20)}
	}
	return res.Stdout, nil
}

func tee(b *bytes.Buffer, log io.Writer) io.Writer {
	if log == nil {
		return b
	}
	return io.MultiWriter(b, log)
}

func lastLines(s string, n int) []string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}

// Eval evaluates the toplevel of a host's system without building it. flake is
// a flake reference, a store path, or a command that prints a store path.
func (n *Nix) Eval(ctx context.Context, flake, attr string) (System, error) {
	switch {
	case strings.HasPrefix(flake, "/nix/store/"):
		return System{Out: flake}, nil
	case isCommand(flake):
		return n.evalCommand(ctx, flake, attr)
	}
	out, err := n.run(ctx, "nix", "--extra-experimental-features", features, "eval", "--json",
		n.installable(flake, attr), "--apply", `t: { drv = t.drvPath; out = t.outPath; kind = t.system or ""; }`)
	if err != nil {
		return System{}, err
	}
	var v struct{ Drv, Out, Kind string }
	if err := json.Unmarshal(out, &v); err != nil {
		return System{}, fmt.Errorf("cannot read what nix eval printed: %w", err)
	}
	return System{Attr: attr, Drv: v.Drv, Out: v.Out, Kind: v.Kind}, nil
}

func isCommand(flake string) bool { return strings.ContainsAny(flake, " \t") }

func (n *Nix) evalCommand(ctx context.Context, command, attr string) (System, error) {
	out, err := n.exec(ctx, []string{"DEPLOYER_SYSTEM=" + attr}, "sh", "-c", command)
	if err != nil {
		return System{}, err
	}
	path := strings.TrimSpace(string(out))
	if !strings.HasPrefix(path, "/nix/store/") || strings.ContainsAny(path, " \n") {
		return System{}, fmt.Errorf("`%s` printed %q, want one store path", command, path)
	}
	return System{Attr: attr, Out: path}, nil
}

func (n *Nix) installable(flake, attr string) string {
	return n.ref(flake) + "#nixosConfigurations." + quoteAttr(attr) + ".config.system.build.toplevel"
}

// ref makes a relative flake reference absolute, so that it means the project's
// folder wherever the command runs.
func (n *Nix) ref(flake string) string {
	if flake == "" || flake == "." || strings.HasPrefix(flake, "./") || strings.HasPrefix(flake, "../") {
		if abs, err := filepath.Abs(filepath.Join(n.Dir, flake)); err == nil {
			return abs
		}
	}
	return flake
}

func quoteAttr(attr string) string {
	if strings.ContainsAny(attr, ". ") {
		return `"` + attr + `"`
	}
	return attr
}

// Build makes the system's closure valid on the controller.
func (n *Nix) Build(ctx context.Context, s System) error {
	if s.Drv == "" {
		_, err := n.run(ctx, "nix-store", "--realise", s.Out)
		return err
	}
	_, err := n.run(ctx, "nix-store", "--realise", s.Drv)
	return err
}

// Keep builds nothing: it makes link a GC root of a valid path.
func (n *Nix) Keep(ctx context.Context, path, link string) error {
	_, err := n.run(ctx, "nix-store", "--realise", path, "--add-root", link)
	return err
}

// Parse checks the syntax of files.
func (n *Nix) Parse(ctx context.Context, files []string) error {
	if len(files) == 0 {
		return nil
	}
	_, err := n.run(ctx, append([]string{"nix-instantiate", "--parse"}, files...)...)
	return err
}

// Revision is the source's revision, "" where the flake has none. A dirty tree
// says so in its name.
func (n *Nix) Revision(ctx context.Context, flake string) string {
	if strings.HasPrefix(flake, "/nix/store/") || isCommand(flake) {
		return ""
	}
	out, err := n.run(ctx, "nix", "--extra-experimental-features", features, "flake", "metadata", "--json", n.ref(flake))
	var v struct{ Revision, DirtyRevision string }
	if err != nil || json.Unmarshal(out, &v) != nil {
		return ""
	}
	if v.Revision != "" {
		return v.Revision
	}
	return v.DirtyRevision
}

// SignsFor tells whether this machine signs what it builds with a key that is
// among the trusted ones ("name:base64").
func (n *Nix) SignsFor(ctx context.Context, trusted []string) bool {
	out, err := n.run(ctx, "nix", "--extra-experimental-features", features, "show-config", "--json")
	if err != nil {
		return false
	}
	var conf map[string]struct{ Value any }
	if json.Unmarshal(out, &conf) != nil {
		return false
	}
	files, _ := conf["secret-key-files"].Value.([]any)
	for _, f := range files {
		path, _ := f.(string)
		b, err := os.ReadFile(path)
		name, _, ok := strings.Cut(string(b), ":")
		if err == nil && ok && slices.ContainsFunc(trusted, func(k string) bool { return strings.HasPrefix(k, name+":") }) {
			return true
		}
	}
	return false
}

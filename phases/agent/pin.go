package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// gcroots is where Nix looks for what must not be collected; symbolic links
// below it count, in any folder (nix manual, nix-collect-garbage).
const gcroots = "/nix/var/nix/gcroots/deployer"

func (a *agent) pin(_ context.Context, p Pin) (Pin, error) {
	if err := checkPin(p.Run, p.Name); err != nil {
		return p, err
	}
	if !strings.HasPrefix(p.Path, "/nix/store/") || filepath.Clean(p.Path) != p.Path {
		return p, invalid("%s is not in the Nix store", p.Path)
	}
	if _, err := os.Lstat(a.host(p.Path)); err != nil {
		return p, &Error{Code: "not-found", Message: p.Path + " is not on this host"}
	}
	roots := a.host(gcroots)
	if err := os.MkdirAll(roots, 0o755); err != nil {
		return p, err
	}
	if err := a.syncDir(filepath.Dir(roots)); err != nil {
		return p, err
	}
	return p, a.linkAt(roots, p.Run+"-"+p.Name, p.Path)
}

func checkPin(run, name string) error {
	if err := checkName("run", run); err != nil {
		return err
	}
	return checkName("pin", name)
}

func (a *agent) doUnpin(_ context.Context, run string, op Operation) (effect, error) {
	if err := checkPin(run, op.Name); err != nil {
		return effect{}, err
	}
	name := run + "-" + op.Name
	_, err := os.Lstat(a.host(gcroots) + "/" + name)
	return effect{already: err != nil}, a.removeAt(a.host(gcroots), name)
}

// unpinRun removes every root of a run, but none of a run whose name is longer.
func (a *agent) unpinRun(s *store, run string) error {
	entries, _ := os.ReadDir(a.host(gcroots))
	runs, err := s.names("runs")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if owner(e.Name(), runs) != run {
			continue
		}
		if err := a.removeAt(a.host(gcroots), e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// owner is the run with the longest name that a root's name begins with.
func owner(root string, runs []string) string {
	best := ""
	for _, r := range runs {
		if strings.HasPrefix(root, r+"-") && len(r) > len(best) {
			best = r
		}
	}
	return best
}

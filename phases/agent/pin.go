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
	if err := checkPin(p); err != nil {
		return p, err
	}
	if !strings.HasPrefix(p.Path, "/nix/store/") || filepath.Clean(p.Path) != p.Path {
		return p, &Error{Code: "invalid", Message: p.Path + " is not in the Nix store"}
	}
	if _, err := os.Lstat(a.host(p.Path)); err != nil {
		return p, &Error{Code: "not-found", Message: p.Path + " is not on this host"}
	}
	if err := os.MkdirAll(a.host(gcroots), 0o755); err != nil {
		return p, err
	}
	if err := syncDir(filepath.Dir(a.host(gcroots))); err != nil {
		return p, err
	}
	return p, linkAt(a.host(gcroots), p.Run+"-"+p.Name, p.Path)
}

func (a *agent) unpin(_ context.Context, p Pin) (Pin, error) {
	if err := checkPin(p); err != nil {
		return p, err
	}
	return p, removeAt(a.host(gcroots), p.Run+"-"+p.Name)
}

func checkPin(p Pin) error {
	if err := checkName("run", p.Run); err != nil {
		return err
	}
	return checkName("pin", p.Name)
}

func (a *agent) doPin(ctx context.Context, run string, op Operation) (effect, error) {
	if link, err := os.Readlink(a.host(gcroots) + "/" + run + "-" + op.Name); err == nil && link == op.System {
		return effect{already: true}, nil
	}
	_, err := a.pin(ctx, Pin{run, op.Name, op.System})
	return effect{}, err
}

func (a *agent) doUnpin(ctx context.Context, run string, op Operation) (effect, error) {
	_, err := os.Lstat(a.host(gcroots) + "/" + run + "-" + op.Name)
	if _, e := a.unpin(ctx, Pin{Run: run, Name: op.Name}); e != nil {
		return effect{}, e
	}
	return effect{already: err != nil}, nil
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
		if err := removeAt(a.host(gcroots), e.Name()); err != nil {
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

package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	plugins "github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/runbooks"
)

// notifyConfig is what a notify plugin is configured with. Secrets are asked
// for by name, never handed over in the configuration.
func notifyConfig(p *runbooks.Project, c *runbooks.Notify) any {
	conf := map[string]string{}
	if c.Path != "" {
		conf["path"] = within(p.Dir, c.Path)
	}
	if c.URL != nil && c.URL.Value != "" {
		conf["url"] = c.URL.Value
	}
	return conf
}

// secretsOf finds a receiver's secrets when its plugin asks for them.
func secretsOf(p *runbooks.Project, c *runbooks.Notify) plugins.SecretFunc {
	return func(ctx context.Context, name string) (string, bool, error) {
		s := map[string]*runbooks.Secret{"url": c.URL, "sign": c.Sign}[name]
		if s == nil {
			return "", false, nil
		}
		v, err := reveal(ctx, p, s)
		return v, err == nil, err
	}
}

// reveal reads a secret from where deployer.yaml says it is.
func reveal(ctx context.Context, p *runbooks.Project, s *runbooks.Secret) (string, error) {
	switch {
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("%s: the environment has no %s", s.Pos, s.Env)
		}
		return v, nil
	case s.File != "":
		b, err := os.ReadFile(within(p.Dir, s.File))
		return strings.TrimSpace(string(b)), err
	case s.Command != "":
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "sh", "-c", s.Command).Output()
		if err != nil {
			return "", fmt.Errorf("%s: the command for the secret failed: %w", s.Pos, err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	return s.Value, nil
}

// secretValues are all secrets that can be read now: none of them may reach the
// journal. One that cannot be read is found when it is used.
func secretValues(ctx context.Context, p *runbooks.Project) []string {
	var values []string
	for _, n := range p.Notify {
		for _, s := range []*runbooks.Secret{n.URL, n.Sign} {
			if s == nil || s.Value != "" {
				continue
			}
			if v, err := reveal(ctx, p, s); err == nil && len(v) >= 4 {
				values = append(values, v)
			}
		}
	}
	return values
}

// within makes a path of deployer.yaml absolute: it starts from that file's folder.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

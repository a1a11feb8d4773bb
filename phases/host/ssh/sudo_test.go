package ssh

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
)

func dana(t *testing.T) (*site, Config) {
	s := newSite(t)
	if _, err := exec.LookPath("sudo"); err != nil {
		missing(t, "needs sudo")
	}
	return s, s.config(0)
}

func (s *site) upAs(user string) Config {
	c := s.up()
	c.User = user
	return c
}

// privileged makes every command of a login that is not root one of root's.
type privileged struct{ host.Host }

// marked gives a command an environment: only then can its mark pass sudo.
func marked(c host.Command) host.Command {
	c.Privileged, c.Env = true, append(c.Env, "MARKED=yes")
	return c
}

func (p privileged) Run(ctx context.Context, c host.Command) (host.Result, error) {
	return p.Host.Run(ctx, marked(c))
}

func (p privileged) Start(ctx context.Context, c host.Command) (host.Process, error) {
	return p.Host.Start(ctx, marked(c))
}

func TestPrivilegedConformance(t *testing.T) {
	s, _ := dana(t)
	c := s.upAs("dana")
	hosttest.Conformance(t, func() host.Host { return privileged{s.dial(c)} })
}

func TestLoginTellsWhoIsLoggedIn(t *testing.T) {
	s, _ := dana(t)
	h := s.dial(s.upAs("dana"))
	if user, root := h.Login(); user != "dana" || root {
		t.Errorf("login is %s, root %t", user, root)
	}
	res, err := h.Run(t.Context(), host.Command{Args: []string{"id", "-u"}, Privileged: true})
	if err != nil || string(res.Stdout) != "0\n" {
		t.Errorf("privileged is %q, %v", res.Stdout, err)
	}
	if got := run(t, h, "id", "-u"); got != "4242" {
		t.Errorf("not privileged is %s", got)
	}
}

func TestSudoThatRefusesIsNoSudo(t *testing.T) {
	for name, rule := range map[string]string{"nothing": "", "password": "dana ALL=(root) ALL", "other": "dana ALL=(root) NOPASSWD: /bin/false"} {
		t.Run(name, func(t *testing.T) {
			s, _ := dana(t)
			s.rule = rule
			_, err := s.dial(s.upAs("dana")).Run(t.Context(), host.Command{Args: []string{"id"}, Privileged: true})
			var e *host.Error
			if !errors.As(err, &e) || e.Kind != host.NoSudo || len(e.Hint) == 0 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The deploy user's rule names one program; an agent runs under it with nothing
// in between, and ends at the end of its input.
func TestSudoRuleForOneProgramIsEnough(t *testing.T) {
	s, _ := dana(t)
	s.write("agent", "#!/bin/sh\necho \"$@\"; exec cat\n")
	os.Chmod(s.path("agent"), 0o755)
	s.rule = "dana ALL=(root) NOPASSWD: " + s.path("agent")
	h := s.dial(s.upAs("dana"))
	p, err := h.Start(s.context(), host.Command{Args: []string{s.path("agent"), "run", "D", "serve"}, Privileged: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(p, "{}\n")
	p.CloseWrite()
	out, _ := io.ReadAll(p)
	if res, err := p.Wait(); err != nil || res.Code != 0 || !strings.HasSuffix(string(out), "run D serve\n{}\n") {
		t.Errorf("said %q, ended %+v, %v", out, res, err)
	}
}

// Without an environment no mark passes sudo, but sessions and descent are enough
// for all but orphans that left their session.
func TestCancelEndsAPlainSudoCommand(t *testing.T) {
	s, _ := dana(t)
	h := s.dial(s.upAs("dana"))
	ctx, cancel := context.WithCancel(s.context())
	time.AfterFunc(time.Second, cancel)
	_, err := h.Run(ctx, host.Command{Privileged: true, Args: []string{"sh", "-c", `setsid sh -c "sleep 301; :" & sleep 301; :`}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := exec.Command("pgrep", "-f", "sleep 301").Output(); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

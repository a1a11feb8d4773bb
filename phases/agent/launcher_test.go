package agent

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// launcher is the real text, below a folder of the test's own.
func (h *host) launcher(stdin string, args ...string) (code int, out string) {
	h.t.Helper()
	c := exec.Command("sh", append([]string{"-c", strings.ReplaceAll(Launcher, Dir, h.path("state")), "agent"}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	b, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(b)
	}
	must(h.t, err)
	return 0, string(b)
}

func TestLauncherRunsWhatItReceived(t *testing.T) {
	h := newHost(t)
	const program = "#!/bin/sh\necho ran $*\n"
	digest := sum([]byte(program))
	for _, c := range []struct {
		stdin string
		args  []string
		code  int
		out   string
	}{
		{"", []string{"run", digest, "serve"}, ExitNotInstalled, ""},
		{"x" + program, []string{"install", digest}, 65, "not " + digest},
		{program, []string{"install", digest}, 0, ""},
		{"", []string{"run", digest, "serve"}, 0, "ran serve"},
		{"", []string{"run", "../../bin/sh"}, 64, "not a sha256"},
		{"", []string{"run"}, 64, "not a sha256"},
		{"", []string{"bogus", digest}, 64, "usage"},
	} {
		if code, out := h.launcher(c.stdin, c.args...); code != c.code || !strings.Contains(out, c.out) {
			t.Errorf("%q: exit %d, %q", c.args, code, out)
		}
	}
	left, _ := os.ReadDir(h.path("state/bin"))
	if len(left) != 1 {
		t.Errorf("left in bin: %v", left)
	}
}

func TestLauncherResumesTheAgentThatArmed(t *testing.T) {
	h := newHost(t)
	const program = "#!/bin/sh\necho ran $*\n"
	digest := sum([]byte(program))
	resume := func(code int, want string) {
		t.Helper()
		if is, out := h.launcher("", "resume"); is != code || !strings.Contains(out, want) || want == "" && out != "" {
			t.Errorf("exit %d, %q; want %d, %q", is, out, code, want)
		}
	}
	resume(0, "") // nothing was ever armed
	h.launcher(program, "install", digest)
	resume(0, "")
	h.file("state/current", digest)
	resume(0, "ran resume")
	h.file("state/current", digest+"\n")
	resume(0, "ran resume")

	h.file("state/current", "/bin/sh\n")
	resume(64, "not a sha256")
	h.file("state/current", sum(nil)+"\n")
	resume(ExitNotInstalled, "is not there")
	h.link("state/bin/"+sum(nil), digest)
	resume(ExitNotInstalled, "is not there")
	h.link("state/current", "bin/"+digest)
	resume(0, "") // no link is followed
	os.Remove(h.path("state/current"))
	h.file("state/current", digest+"\n")
	must(t, os.Chmod(h.path("state/bin/"+digest), 0o700))
	h.file("state/bin/"+digest, "#!/bin/sh\necho other\n")
	resume(ExitNotInstalled, "not what its name says")
}

package labtest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Need skips the test unless it runs inside a lab.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv("DEPLOYER_LAB") == "1" {
		return
	}
	const why = "needs the lab: go run ./cmd/lab up, then go run ./cmd/lab exec -- go test ./..."
	if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// lab runs a command of the lab's own and gives its standard output.
func lab(args ...string) (string, error) { return run(exec.Command(os.Getenv("LAB_BIN"), args...)) }

// run adds what the command said to its error.
func run(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = &commandError{strings.Join(cmd.Args, " "), stderr.String(), err}
	}
	return string(out), err
}

type commandError struct {
	command, stderr string
	err             error
}

func (e *commandError) Error() string {
	return "cannot " + e.command + ": " + e.err.Error() + "\n" + e.stderr
}
func (e *commandError) Unwrap() error { return e.err }

func must(t testing.TB, out string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Host is a host of the lab, by name.
type Host string

// Enter runs a shell script inside the host, without ssh, and gives its
// standard output without the last newline.
func (h Host) Enter(t testing.TB, script string) string {
	t.Helper()
	out, err := h.Try(script)
	return must(t, out, err)
}

// Try is Enter for scripts that may fail.
func (h Host) Try(script string) (string, error) {
	out, err := lab("enter", string(h), "sh", "-c", script)
	return strings.TrimSuffix(out, "\n"), err
}

// Net disturbs or mends the host's network: see lab net. It is good again when
// the test ends.
func (h Host) Net(t testing.TB, args ...string) {
	t.Helper()
	if !slices.Equal(args, []string{"clear"}) && !slices.Equal(args, []string{"heal"}) {
		t.Cleanup(func() { _, _ = lab("net", string(h), "clear") })
	}
	out, err := lab(append([]string{"net", string(h)}, args...)...)
	must(t, out, err)
}

// Power presses one of the host's buttons: see lab host.
func (h Host) Power(t testing.TB, action string) {
	t.Helper()
	out, err := lab("host", string(h), action)
	must(t, out, err)
}

// WaitSSH returns when the host lets root and deploy log in.
func (h Host) WaitSSH(t testing.TB) {
	t.Helper()
	out, err := lab("wait", string(h))
	must(t, out, err)
}

// Fresh gives hosts a fresh disk, as lab up did, and waits until they answer.
func Fresh(t testing.TB, hosts ...Host) {
	t.Helper()
	for _, h := range hosts {
		h.Power(t, "reset")
	}
	for _, h := range hosts {
		h.WaitSSH(t)
	}
}

// Project writes a demo project into a folder of the test's own; sets maps
// systems to JSON that is merged into their options.
func Project(t testing.TB, sets map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	Change(t, dir, sets)
	return dir
}

// Change makes a new commit in a project, with other options.
func Change(t testing.TB, dir string, sets map[string]string) {
	t.Helper()
	args := []string{"project", dir}
	for system, json := range sets {
		args = append(args, "--set", system+"="+json)
	}
	out, err := lab(args...)
	must(t, out, err)
}

// Build gives the store path of one of the project's systems, built.
func Build(t testing.TB, dir, system string) string {
	t.Helper()
	out, err := run(exec.Command("nix", "build", dir+"#nixosConfigurations."+system+".config.system.build.toplevel", "--no-link", "--print-out-paths"))
	return strings.TrimSpace(must(t, out, err))
}

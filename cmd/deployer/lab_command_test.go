package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shell types something on the controller, in the project.
func (s *site) shell(want int, line string) string {
	s.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+s.state, "PATH="+filepath.Dir(binary(s.T))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if code := exitCode(s.T, err); code != want {
		s.Fatalf("exit %d, not %d: %s\n%s", code, want, line, out)
	}
	return string(out)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

// binary is the program under test: DEPLOYER_BIN, or what this checkout builds.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DEPLOYER_BIN"); path != "" {
		return path, nil
	}
	path, err := filepath.Abs("../../bin/lab-test/deployer")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build deployer: %w\n%s", err, out)
	}
	return path, nil
})

// result is how one invocation of deployer ended.
type result struct {
	line     string
	exit     int
	out, err string
}

// deployer runs it in the project and waits for its end.
func (s *site) deployer(args ...string) result {
	s.Helper()
	cmd, wait := s.start(args...)
	_ = cmd
	return wait()
}

// start begins it; wait gives how it ended. A test that fails before it waits ends
// it, and tells what it had said.
func (s *site) start(args ...string) (*exec.Cmd, func() result) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Minute)
	cmd := exec.CommandContext(ctx, binary(s.T), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+s.state, "NO_COLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		cancel()
		s.Fatal(err)
	}
	waited := false
	s.Cleanup(func() {
		if !waited {
			cancel()
			err := cmd.Wait()
			s.Logf("deployer %s, not waited for: %v\n%s%s%s\n%s", strings.Join(args, " "), err, &out, &errs, s.logTail(), s.written())
		}
	})
	return cmd, func() result {
		s.Helper()
		defer cancel()
		waited = true
		err := cmd.Wait()
		r := result{"deployer " + strings.Join(args, " "), exitCode(s.T, err), out.String(), errs.String()}
		if ctx.Err() != nil {
			s.Fatalf("%s did not end\n%s%s", r.line, r.out, r.err)
		}
		return r
	}
}

// want runs deployer and wants an exit code.
func (s *site) want(exit int, args ...string) result {
	s.Helper()
	r := s.deployer(args...)
	if r.exit != exit {
		s.Fatalf("exit %d, not %d: %s\n%s%s%s", r.exit, exit, r.line, r.out, r.err, s.logTail())
	}
	return r
}

// run runs the runbook `lab` and gives what it left behind.
func (s *site) run(exit int, more ...string) *labRun {
	s.Helper()
	r := s.want(exit, append([]string{"run", "lab", "--yes"}, more...)...)
	rec := s.latest()
	rec.result = r
	return rec
}

// logTail is a help for whoever reads a failure.
func (s *site) logTail() string {
	dirs, _ := filepath.Glob(filepath.Join(s.state, "deployer", "*", "*", "output", "*"))
	var b strings.Builder
	for _, f := range dirs {
		text, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "---- %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-12):], "\n"))
	}
	return b.String()
}

// told is what deployer told a person: of a failure, all from where it is named.
func (r result) told() string {
	if i := strings.LastIndex("\n"+r.err, "\nerror: "); r.exit != 0 && i >= 0 {
		return r.err[i:]
	}
	return r.out + r.err
}

// says wants all of words in what a person was told.
func (s *site) says(r result, words ...string) {
	s.Helper()
	for _, w := range words {
		if !strings.Contains(r.told(), w) {
			s.Errorf("%s does not say %q:\n%s%s", r.line, w, r.out, r.err)
		}
	}
}

// hints are the lines that deployer printed to be typed next.
func (r result) hints() []string {
	var lines []string
	in := false
	for line := range strings.Lines(r.err) {
		line = strings.TrimRight(line, "\n")
		rest, first := strings.CutPrefix(line, " next: ")
		more, indented := strings.CutPrefix(line, "       ")
		switch {
		case first:
			in, lines = true, append(lines, rest)
		case in && indented:
			lines = append(lines, more)
		default:
			in = false
		}
	}
	return lines
}

// hint is the one printed line that has word in it.
func (s *site) hint(r result, word string) string {
	s.Helper()
	hints := r.hints()
	i := slices.IndexFunc(hints, func(h string) bool { return strings.Contains(h, word) })
	if i < 0 {
		s.Fatalf("%s prints no command with %q:\n%s", r.line, word, r.err)
	}
	return hints[i]
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tool runs a program to its end and gives its output; a failure carries the
// program's last words.
func tool(name string, args ...string) (string, error) { return toolEnv(nil, name, args...) }

func toolEnv(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("cannot %s: %w: %s", filepath.Base(name)+" "+strings.Join(args, " "), err, lastLines(stderr.String()+text, 5))
	}
	return text, nil
}

// tools runs several programs, up to the first that fails.
func tools(lines ...[]string) error {
	for _, l := range lines {
		if _, err := tool(l[0], l[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// childCode is what a child's end means as an exit code of ours.
func childCode(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if code := exit.ExitCode(); code >= 0 {
		return exitError(code)
	}
	return exitError(128 + int(signalOf(exit)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

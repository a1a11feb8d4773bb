package main

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed all:flake all:project scripts
var embedded embed.FS

// eachEmbedded goes through the files of a folder, in order.
func eachEmbedded(folder string, do func(path string, data []byte) error) error {
	return fs.WalkDir(embedded, folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := embedded.ReadFile(path)
		return errors.Join(err, do(path, data))
	})
}

// shell calls a function of folder scripts.
func (l lab) shell(vars []string, call ...string) *exec.Cmd {
	var text strings.Builder
	_ = eachEmbedded("scripts", func(_ string, data []byte) error { text.Write(data); return nil })
	cmd := exec.Command("bash", append([]string{"-euc", `eval "$SCRIPTS"; unset SCRIPTS; "$@"`, "bash"}, call...)...)
	cmd.Env = append(append(l.env(), vars...), "SCRIPTS="+text.String(), "CACHE="+l.home, "RUN="+l.run,
		"CGROUP=lab-"+l.id+"-"+digest(l.run), "BOOT_FS="+bootFilesystem())
	return cmd
}

func (l lab) sh(call ...string) error { return output(l.shell(nil, call...)) }

// inStore calls a function in a mount namespace of its own.
func (l lab) inStore(vars []string, call ...string) error {
	cmd := l.shell(vars, call...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return output(cmd)
}

// output runs a program to its end; a failure carries its last words.
func output(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	words := cmd.Args
	if words[0] == "bash" {
		words = words[4:]
	}
	return fmt.Errorf("cannot %s: %w: %s", strings.Join(words, " "), err, lastLines(string(out), 5))
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
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitError(128 + int(ws.Signal()))
	}
	return exitError(exit.ExitCode())
}

// within asks again and again until an answer is true or time is up.
func within(patience time.Duration, done func() bool, otherwise string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return fmt.Errorf("%s within %s", otherwise, patience)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// read gives the text of a file, "" where there is none.
func read(path ...string) string {
	data, _ := os.ReadFile(filepath.Join(path...))
	return strings.TrimSpace(string(data))
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

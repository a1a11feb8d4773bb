package shell

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// marker is the environment variable by which a command is found again.
const marker = "DEPLOYER_COMMAND"

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// Line is the shell line for cmd. With sudo, nothing but the command itself
// follows `sudo -n --`, unless Env or Dir ask for a shell there: a sudo rule may
// allow one program only.
func Line(cmd host.Command, id string, sudo bool) (string, error) {
	if err := check(cmd); err != nil {
		return "", err
	}
	plain := cmd.Dir == "" && len(cmd.Env) == 0
	if cmd.Dir == "" && (sudo || cmd.Privileged) {
		cmd.Dir = "/" // the login's home may lie in a subvolume that is to be exchanged
	}
	switch {
	case !sudo:
		return wrap(script(cmd, id)), nil
	case plain:
		cmd.Args = append([]string{"sudo", "-n", "--"}, cmd.Args...)
		return wrap(script(cmd, id)), nil
	}
	outer := host.Command{Args: []string{"sudo", "-n", "--", "/bin/sh", "-c", script(cmd, id)}}
	return wrap(script(outer, id)), nil
}

// script becomes the command: every exec replaces the shell.
func script(cmd host.Command, id string) string {
	enter := ""
	if cmd.Dir != "" {
		enter = "cd " + Quote(folder(cmd.Dir)) + " || exit 126; "
	}
	env := append([]string{marker + "=" + id}, cmd.Env...)
	return enter + "export" + assignments(env) + "; exec " + dash(cmd.Args[0]) + quoteAll(cmd.Args)
}

func check(cmd host.Command) error {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return errors.New("a command needs a program")
	}
	for _, kv := range cmd.Env {
		if !variable.MatchString(kv) {
			return fmt.Errorf("environment %q: want NAME=VALUE", kv)
		}
	}
	if slices.ContainsFunc(slices.Concat(cmd.Args, cmd.Env, []string{cmd.Dir}), func(w string) bool { return strings.ContainsRune(w, 0) }) {
		return errors.New("a zero byte cannot be passed to a program")
	}
	return nil
}

// assignments quotes the values only: quoted names would be no assignments.
func assignments(env []string) string {
	var b strings.Builder
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		b.WriteString(" " + k + "=" + Quote(v))
	}
	return b.String()
}

// folder keeps cd from reading a name as an option or looking along CDPATH.
func folder(dir string) string {
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	return "./" + dir
}

// dash keeps exec from reading a program's name as an option.
func dash(program string) string {
	if strings.HasPrefix(program, "-") {
		return "-- "
	}
	return ""
}

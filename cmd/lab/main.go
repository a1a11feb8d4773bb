package main

import (
	"errors"
	"fmt"
	"os"
)

// exitError is a command's own exit code, passed through without a word.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// missingError is what the machine lacks; the lab then ends with 15.
type missingError struct{ what, hint string }

func (e missingError) Error() string { return e.what + "\n" + e.hint }

func main() {
	// A root login looks in these, not every su or sudo does.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	os.Unsetenv("NIX_REMOTE") // the lab's store has no daemon
	os.Exit(exitCode(newCommand().Execute()))
}

func exitCode(err error) int {
	var code exitError
	if err == nil {
		return 0
	}
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	if errors.As(err, &missingError{}) {
		return 15
	}
	return 1
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

const usage = `usage: deployer-agent [-root DIR] serve
       deployer-agent [-root DIR] restore RUN | guard RUN | resume
       deployer-agent [-root DIR] send | receive JSON
The agent of deployer on a host. serve answers JSON lines on standard input;
restore puts the host back to what it was before a run, from its stored recipe;
guard does that by itself where no decision comes in time; resume goes on with it after a boot;
send and receive are the two ends of an off-host copy`

// Main is the program: the verbs of cmd/deployer-agent and of `deployer agent`.
func Main(args []string) int {
	o := Options{Self: selfCommand(args)}
	if len(args) >= 2 && args[0] == "-root" {
		o.Root, args = args[1], args[2:]
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// A reader that is gone must not kill the agent in the middle of a write. A
	// handler, not "ignore": children would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)
	code, err := verb(ctx, o, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "deployer-agent:", err)
		var e *Error
		if errors.As(err, &e) {
			for _, h := range e.Hint {
				fmt.Fprintln(os.Stderr, "  hint:", h)
			}
		}
	}
	return code
}

func verb(ctx context.Context, o Options, args []string) (int, error) {
	switch {
	case slices.Equal(args, []string{"serve"}):
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return 1, Serve(ctx, os.Stdin, os.Stdout, o)
	case len(args) == 2 && args[0] == "send":
		if err := newAgent(o).send(args[1]); err != nil {
			return 1, err
		}
		return 0, nil
	case len(args) == 2 && args[0] == "receive":
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return 0, newAgent(o).receive(ctx, args[1])
	case len(args) == 2 && args[0] == "job":
		return newAgent(o).runJob(ctx, args[1])
	case len(args) == 2 && args[0] == "guard":
		return newAgent(o).runGuard(ctx, args[1])
	case len(args) == 2 && args[0] == "go-on":
		return newAgent(o).runGoOn(ctx, args[1])
	case slices.Equal(args, []string{"resume"}):
		return newAgent(o).runResume(ctx)
	case len(args) == 2 && args[0] == "restore":
		a := newAgent(o)
		return a.runRestore(ctx, args[1], a.Unit)
	}
	return 64, errors.New(usage)
}

// selfCommand is how this program was started, up to the agent's own arguments:
// "deployer-agent", or "deployer agent".
func selfCommand(args []string) []string {
	exe, err := os.Executable()
	if err != nil || len(os.Args) <= len(args) {
		return nil
	}
	return append([]string{exe}, os.Args[1:len(os.Args)-len(args)]...)
}

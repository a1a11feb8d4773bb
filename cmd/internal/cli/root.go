// Package cli is the command line: one file for each command, always in the
// same order: the command and its flags, then what it does. Nothing here
// prints but through the view.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
)

// Version is set by release builds.
var Version = "dev"

// globals are the flags that every command takes.
type globals struct {
	project   string
	view      view.Options
	json      bool
	noInput   bool
	acceptNew bool
	verbose   int
}

// app is one invocation.
type app struct {
	globals
	*view.Streams
	args []string // as they were typed
	sig  *signals // of a command outside of runs
}

// Main runs the command line and returns the exit code.
func Main(args []string) int {
	a := &app{args: args}
	root := a.root()
	root.SetArgs(args)
	a.view.Verbose = a.verbose > 0
	a.Streams = view.New(view.Options{})
	err := root.ExecuteContext(context.Background())
	return a.exit(err)
}

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "deployer",
		Short: "Run a change plan against NixOS hosts: snapshot, try, judge, commit, or go back",
		Long: `deployer runs a runbook in phases against NixOS hosts over SSH. It takes
snapshots before it touches anything, rolls back by itself when validation
fails, and undoes a finished run with one command.`,
		Example: `  deployer run production --dry-run    # what would happen, for review
  deployer run production              # do it
  deployer rollback                    # undo it
  deployer status                      # where things stand`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.look() },
	}
	f := c.PersistentFlags()
	f.StringVarP(&a.project, "project", "f", "", "deployer.yaml, or the folder it is in (default .)")
	f.StringVar(&a.view.Color, "color", "auto", "auto, always or never")
	f.BoolVar(&a.view.ASCII, "ascii", false, "no symbols beyond ASCII")
	f.BoolVarP(&a.view.Quiet, "quiet", "q", false, "results only")
	f.BoolVar(&a.json, "json", false, "machine-readable output on stdout")
	f.BoolVar(&a.noInput, "no-input", false, "never ask: fail with the flag to pass")
	f.BoolVar(&a.acceptNew, "accept-new-host-keys", false, "write keys of hosts that known_hosts does not know into it")
	f.CountVarP(&a.verbose, "verbose", "v", "-v: what steps do; -vv: everything, on stderr")
	_ = c.RegisterFlagCompletionFunc("color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		_ = a.look()
		return usage(err, c.CommandPath()+" --help")
	})
	c.SetUsageTemplate(examplesFirst(c.UsageTemplate()))
	c.AddCommand(a.runCmd(), a.planCmd(), a.rollbackCmd(), a.resumeCmd(), a.abortCmd(), a.unlockCmd(), a.snapshotsCmd(), a.statusCmd(), a.doctorCmd(), a.historyCmd(), a.showCmd(), a.logsCmd(),
		a.reportCmd(), a.lintCmd(), a.initCmd(), a.pluginsCmd(), a.schemaCmd(), a.versionCmd(), a.debugCmd(), agentCmd(), pluginServeCmd())
	c.InitDefaultCompletionCmd()
	worded(c)
	return c
}

// worded gives all commands our words about arguments. A group of commands
// takes any, and shows its help, if nobody says otherwise.
func worded(parent *cobra.Command) {
	for _, c := range parent.Commands() {
		c.Args = inOurWords(c.Args)
		if c.HasSubCommands() && !c.Runnable() {
			c.Args, c.RunE = noSuchCommand, func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		worded(c)
	}
}

func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	var hints []string
	for _, name := range c.SuggestionsFor(args[0]) {
		hints = append(hints, c.CommandPath()+" "+name)
	}
	return usage(fmt.Errorf("%s has no command %q", c.CommandPath(), args[0]), append(hints, c.CommandPath()+" --help")...)
}

// look decides how things look, by the flags and the environment.
func (a *app) look() error {
	a.view.Project = a.project
	a.view.Verbose = a.verbose > 0
	a.Streams = view.New(a.view)
	if a.verbose > 0 {
		a.TTY = false // the log goes to the same place, so nothing is redrawn there
	}
	switch a.view.Color {
	case "auto", "always", "never":
		return nil
	}
	return usage(fmt.Errorf("--color is auto, always or never, not %q", a.view.Color))
}

// examplesFirst: they answer most questions.
func examplesFirst(template string) string {
	const examples = "{{if .HasExample}}\n\nExamples:\n{{.Example}}{{end}}"
	return "{{if .HasExample}}Examples:\n{{.Example}}\n\n{{end}}" + strings.Replace(template, examples, "", 1)
}

// inOurWords says what a command takes, where cobra would count.
func inOurWords(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage(fmt.Errorf("wrong arguments; usage: %s", c.UseLine()), c.CommandPath()+" --help")
		}
		return nil
	}
}

// usage is an error in how the command was typed.
func usage(err error, hint ...string) error {
	return &phases.Failure{Exit: phases.ExitUsage, Err: err, Hint: hint}
}

// exitCode is returned by commands that have said all there is to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exit prints an error, once and here only, and gives its exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return phases.ExitOK
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	var mistakes *runbooks.Errors
	if errors.As(err, &mistakes) {
		if a.json {
			a.jsonError(&phases.Failure{Exit: phases.ExitUsage, Err: mistakes})
		}
		a.Notef("%s\n\n%s; nothing was contacted, nothing was changed\n", strings.TrimRight(mistakes.Detail(), "\n"), count(len(mistakes.List), "mistake"))
		return phases.ExitUsage
	}
	f := phases.AsFailure(err)
	if what, near, ok := strings.Cut(f.Err.Error(), "\n\nDid you mean this?"); ok || strings.HasPrefix(what, "unknown command ") {
		f = &phases.Failure{Exit: phases.ExitUsage, Err: errors.New(what)}
		for _, name := range strings.Fields(near) {
			f.Hint = append(f.Hint, "deployer "+name)
		}
		f.Hint = append(f.Hint, "deployer --help")
	}
	if a.json {
		a.jsonError(f)
	}
	a.Failure(f)
	return f.Exit
}

// jsonError puts the failure on stderr as a record too: the last one.
func (a *app) jsonError(f *phases.Failure) {
	var hints []string
	for _, h := range f.Hint {
		hints = append(hints, a.Here(h))
	}
	a.Notef("%s\n", mustJSON(map[string]any{"type": "exit_error", "exit": f.Exit, "error": f.Error(), "hint": hints}))
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// load reads deployer.yaml and a runbook, and reports the mistakes of both.
func (a *app) load(runbook string, vars map[string]string) (*runbooks.Project, *runbooks.Runbook, error) {
	p, rb, err := runbooks.Load(runbooks.Options{Project: a.project, Runbook: runbook, Vars: vars})
	if err != nil {
		return nil, nil, err
	}
	return p, rb, anchor(p)
}

// loadProject reads deployer.yaml alone.
func (a *app) loadProject() (*runbooks.Project, error) {
	p, err := runbooks.LoadProject(a.project)
	if err != nil {
		return nil, err
	}
	return p, anchor(p)
}

// anchor makes the project's folder absolute: commands run there, the state is
// kept under its name.
func anchor(p *runbooks.Project) (err error) {
	p.Dir, err = filepath.Abs(p.Dir)
	return err
}

// vars reads --var NAME=VALUE.
func vars(list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, v := range list {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, usage(fmt.Errorf("--var %q is not NAME=VALUE", v), "--var burn_in=1h")
		}
		m[name] = value
	}
	return m, nil
}

// owner is who is doing this: user@machine.
func owner() string {
	name, _ := os.Hostname()
	user := os.Getenv("SUDO_USER")
	if user == "" {
		user = os.Getenv("USER")
	}
	if user == "" {
		user = fmt.Sprintf("uid%d", os.Getuid())
	}
	return user + "@" + name
}

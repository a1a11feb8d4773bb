package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

type action func(lab, []string) error

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lab",
		Short: "Disposable NixOS-shaped hosts on this machine, for the demo and the tests",
		Long: `lab runs hosts with real systemd, sshd, Nix and Btrfs, on a network of their own,
and takes them down again without a trace. LAB_HOME is the cache, LAB_ID tells
labs apart. Needs root.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(
		command("base", "Make what all labs share (once per machine, under a minute)", cobra.NoArgs, makeBase),
		upCommand(),
		command("down", "End the lab: hosts, mounts, interfaces, everything", cobra.NoArgs, lab.down),
		command("status", "Show the hosts and whether they run", cobra.NoArgs, inLab(lab.status)),
		command("exec [--] CMD…", "Run a command where the hosts can be reached by name", cobra.MinimumNArgs(1), lab.exec),
		command("ssh [USER@]HOST [CMD…]", "Log in to a host, as root unless USER is given", cobra.MinimumNArgs(1), lab.ssh),
		command("enter HOST CMD…", "Run a command inside a host without ssh, as root", cobra.MinimumNArgs(2), inHost(machine.enterHost)),
		command("host HOST "+verbs, "Press a host's buttons; reset gives it a fresh disk", cobra.ExactArgs(2), inHost(machine.press)),
		netCommand(),
		command("fill HOST PATH", "Fill the file system that PATH of a host is on", cobra.ExactArgs(2), inHost(filler("fill"))),
		command("unfill HOST PATH", "Give back what fill took", cobra.ExactArgs(2), inHost(filler("unfill"))),
		command("wait HOST…", "Wait until ssh on the hosts lets people in", cobra.MinimumNArgs(1), inLab(lab.wait)),
		projectCommand(),
		// What the lab starts itself as.
		command("_holder", "", cobra.ExactArgs(1), lab.hold),
		command("_host", "", cobra.ExactArgs(1), func(l lab, a []string) error { return onHost(l, a, machine.play) }),
		command("_link", "", cobra.ExactArgs(4), serveLink),
	)
	return root
}

func command(use, short string, args cobra.PositionalArgs, run action) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, Hidden: use[0] == '_'}
	cmd.RunE = func(_ *cobra.Command, a []string) error { return run(currentLab(), a) }
	// What follows the first argument is for the command that is run.
	cmd.Flags().SetInterspersed(!strings.HasSuffix(strings.TrimSuffix(use, "]"), "CMD…"))
	return cmd
}

// inLab wraps what has to run where the hosts are: from elsewhere, this
// program's own command line runs again inside.
func inLab(run action) action {
	return func(l lab, args []string) error {
		if !l.inside() {
			return l.exec(append([]string{self()}, os.Args[1:]...))
		}
		return run(l, args)
	}
}

// inHost is inLab for commands whose first argument is a host.
func inHost(run func(machine, []string) error) action {
	return inLab(func(l lab, args []string) error { return onHost(l, args, run) })
}

func onHost(l lab, args []string, run func(machine, []string) error) error {
	m, err := l.machine(args[0])
	if err != nil {
		return err
	}
	return run(m, args[1:])
}

func self() string {
	path, _ := os.Executable()
	return path
}

func makeBase(l lab, _ []string) error {
	if err := need("container"); err != nil {
		return err
	}
	s, _ := defaultSpec().withHosts(nil)
	return l.base(s)
}

func upCommand() *cobra.Command {
	s := defaultSpec()
	plain, noLauncher, noTrust := false, false, false
	cmd := command("up [NAME…]", "Start hosts and wait until ssh answers (default: staging production)", nil, func(l lab, names []string) error {
		if plain {
			s.Layout = "plain"
		}
		s.Launcher, s.Trust = !noLauncher, !noTrust
		return l.up(s, names)
	})
	f := cmd.Flags()
	f.StringVar(&s.Loader, "loader", s.Loader, "boot loader: systemd-boot or grub")
	f.StringVar(&s.Disk, "disk", s.Disk, "size of a host's disk, such as 1G")
	f.BoolVar(&plain, "plain", false, "one root subvolume and nothing ephemeral, without the module: a host that has not adopted the layout")
	f.BoolVar(&noLauncher, "no-launcher", false, "leave out /nix/var/deployer and the module")
	f.BoolVar(&noTrust, "no-trust", false, "leave deploy out of nix trusted-users")
	f.StringVar(&s.Backend, "backend", s.Backend, "container, or vm: a kernel of its own, under emulation")
	return cmd
}

func (s spec) check() error {
	if s.Loader != "systemd-boot" && s.Loader != "grub" {
		return fmt.Errorf("cannot use --loader %s: it is systemd-boot or grub", s.Loader)
	}
	if s.Backend != "container" && s.Backend != "vm" {
		return fmt.Errorf("cannot use --backend %s: it is container or vm", s.Backend)
	}
	return nil
}

func (l lab) status([]string) error {
	s, err := l.spec()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tSTATE\tBOOTS\tSYSTEM\tLAYOUT\tLOADER\tBACKEND")
	for _, h := range s.Hosts {
		m := machine{l, s, h}
		state := map[bool]string{true: "running", false: "off"}[m.running()]
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", h.Name, h.Address, state, m.number("boots"), h.System, s.Layout, s.Loader, s.Backend)
	}
	return w.Flush()
}

func projectCommand() *cobra.Command {
	var sets []string
	const short = "Write a demo project that deploys to staging and production, or change it by a new commit"
	cmd := command("project DIR", short, cobra.ExactArgs(1), func(l lab, args []string) error {
		s, err := l.spec() // of the lab that is up, so that its hosts fit
		if err != nil {
			s = defaultSpec()
		}
		return l.project(args[0], s, sets)
	})
	cmd.Flags().StringArrayVar(&sets, "set", nil, "SYSTEM=JSON merged into the system's options (RFC 7396), can be repeated")
	return cmd
}

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

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
		command("down", "End the lab: hosts, mounts, interfaces, everything", cobra.NoArgs, func([]string) error { return currentLab().down() }),
		command("status", "Show the hosts and whether they run", cobra.NoArgs, inLab(lab.status)),
		verbatim(command("exec [--] CMD…", "Run a command where the hosts can be reached by name", cobra.MinimumNArgs(1), execute)),
		verbatim(command("ssh [USER@]HOST [CMD…]", "Log in to a host, as root unless USER is given", cobra.MinimumNArgs(1), inLab(lab.ssh))),
		verbatim(command("enter HOST CMD…", "Run a command inside a host without ssh, as root", cobra.MinimumNArgs(2), inHost(machine.enterHost))),
		command("host HOST start|stop|reboot|kill|freeze|thaw|powerloss|reset", "Press a host's buttons; reset gives it a fresh disk", cobra.ExactArgs(2), inHost(machine.press)),
		netCommand(),
		command("fill HOST PATH", "Fill the file system that PATH of a host is on", cobra.ExactArgs(2), inHost(func(m machine, a []string) error { return m.fill(fillScript, a[0]) })),
		command("unfill HOST PATH", "Give back what fill took", cobra.ExactArgs(2), inHost(func(m machine, a []string) error { return m.fill(unfillScript, a[0]) })),
		command("wait HOST…", "Wait until ssh on the hosts lets people in", cobra.MinimumNArgs(1), inLab(lab.wait)),
		projectCommand(),
	)
	root.AddCommand(hiddenCommands()...)
	return root
}

func command(use, short string, args cobra.PositionalArgs, run func([]string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(_ *cobra.Command, a []string) error { return run(a) }}
}

// verbatim leaves what follows the first argument to the command that is run.
func verbatim(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// inLab wraps what has to run where the hosts are.
func inLab(run func(lab, []string) error) func([]string) error {
	return func(args []string) error {
		l := currentLab()
		if done, err := l.within(); done {
			return err
		}
		return run(l, args)
	}
}

// inHost is inLab for commands whose first argument is a host.
func inHost(run func(machine, []string) error) func([]string) error {
	return inLab(func(l lab, args []string) error {
		m, err := l.machine(args[0])
		if err != nil {
			return err
		}
		return run(m, args[1:])
	})
}

func makeBase([]string) error {
	if err := need("container"); err != nil {
		return err
	}
	s, err := defaultSpec().withHosts(nil)
	if err != nil {
		return err
	}
	return currentLab().base(s)
}

func upCommand() *cobra.Command {
	s := defaultSpec()
	plain, noLauncher, noTrust := false, false, false
	cmd := command("up [NAME…]", "Start hosts and wait until ssh answers (default: staging production)", nil, func(names []string) error {
		if plain {
			s.Layout = "plain"
		}
		s.Launcher, s.Trust = !noLauncher, !noTrust
		return bringUp(s, names)
	})
	f := cmd.Flags()
	f.StringVar(&s.Loader, "loader", s.Loader, "boot loader: systemd-boot or grub")
	f.StringVar(&s.Disk, "disk", s.Disk, "size of a host's disk, such as 1G")
	f.BoolVar(&plain, "plain", false, "one root subvolume and nothing ephemeral: a host that has not adopted the layout")
	f.BoolVar(&noLauncher, "no-launcher", false, "leave out /nix/var/deployer")
	f.BoolVar(&noTrust, "no-trust", false, "leave deploy out of nix trusted-users")
	f.StringVar(&s.Backend, "backend", s.Backend, "container, or vm: a kernel of its own, under emulation")
	return cmd
}

func bringUp(s spec, names []string) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := need(s.Backend); err != nil {
		return err
	}
	s, err := s.withHosts(names)
	if err != nil {
		return err
	}
	l := currentLab()
	if err := l.up(s); err != nil {
		return err
	}
	if bootFilesystem() != "vfat" {
		fmt.Fprintln(os.Stderr, "lab: this kernel has no vfat: /boot of the hosts is ext4")
	}
	return l.child("status")
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", h.Name, h.Address, state, m.boots(), h.System, s.Layout, s.Loader, s.Backend)
	}
	return w.Flush()
}

func execute(argv []string) error {
	l := currentLab()
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if !l.inside() {
		if err := l.enter(); err != nil {
			return err
		}
	}
	return foreground(dir, l.env(), argv...)
}

func (l lab) ssh(argv []string) error {
	return foreground("", nil, append([]string{"ssh"}, argv...)...)
}

func (m machine) press(args []string) error {
	action, ok := powerActions[args[0]]
	if !ok {
		return fmt.Errorf("cannot %s a host: see lab host --help", args[0])
	}
	return action(m)
}

func netCommand() *cobra.Command {
	var jitter time.Duration
	var loss float64
	cmd := command("net HOST cut | heal | delay TIME [--jitter TIME] [--loss PERCENT] | loss PERCENT | clear",
		"Disturb a host's network, on the lab's side of the cable", cobra.RangeArgs(2, 3),
		inHost(func(m machine, args []string) error { return m.network(args, jitter, loss) }))
	cmd.Flags().DurationVar(&jitter, "jitter", 0, "change of the delay, either way")
	cmd.Flags().Float64Var(&loss, "loss", 0, "percent of the frames that are lost, each way")
	return cmd
}

func (m machine) network(args []string, jitter time.Duration, loss float64) error {
	switch args[0] + strconv.Itoa(len(args)-1) { // the word and how many follow it
	case "cut0":
		return m.cut()
	case "heal0":
		return m.heal()
	case "clear0":
		return m.clearLink()
	case "delay1":
		delay, err := time.ParseDuration(args[1])
		if err != nil {
			return fmt.Errorf("cannot use the delay %s: it is a time such as 50ms", args[1])
		}
		return m.disturb(delay, jitter, loss/100)
	case "loss1":
		percent, err := strconv.ParseFloat(args[1], 64)
		if err != nil {
			return fmt.Errorf("cannot use the loss %s: it is a number of percent", args[1])
		}
		return m.disturb(0, 0, percent/100)
	}
	return fmt.Errorf("cannot do %q to the network: see lab net --help", strings.Join(args, " "))
}

func projectCommand() *cobra.Command {
	var sets []string
	loader := ""
	cmd := command("project DIR", "Write a demo project that deploys to staging and production, or change it by a new commit", cobra.ExactArgs(1), func(args []string) error {
		l := currentLab()
		s, err := l.spec() // of the lab that is up, so that its hosts fit
		if err != nil {
			s = defaultSpec()
		}
		if loader != "" {
			s.Loader = loader
		}
		if err := s.check(); err != nil {
			return err
		}
		return l.project(args[0], s, sets)
	})
	cmd.Flags().StringArrayVar(&sets, "set", nil, "SYSTEM=JSON merged into the system's options (RFC 7396), can be repeated")
	cmd.Flags().StringVar(&loader, "loader", "", "boot loader of the systems (default: that of the lab that is up)")
	return cmd
}

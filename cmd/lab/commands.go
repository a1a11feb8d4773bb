package main

import (
	"encoding/json"
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
	root.AddCommand(baseCommand(), upCommand(), downCommand(), statusCommand(), execCommand(), sshCommand(), enterCommand(),
		netCommand(), hostCommand(), fillCommand("fill", "Fill the file system of a host that PATH is on, to the last byte", fillScript),
		fillCommand("unfill", "Give back what fill took", unfillScript), waitCommand(), projectCommand())
	root.AddCommand(hiddenCommands()...)
	return root
}

// specFlags are the flags that decide what a fresh host is.
func specFlags(cmd *cobra.Command, s *spec) func() error {
	plain, noLauncher, noTrust := false, false, false
	f := cmd.Flags()
	f.StringVar(&s.Loader, "loader", s.Loader, "boot loader: systemd-boot or grub")
	f.StringVar(&s.Disk, "disk", s.Disk, "size of a host's disk, such as 1G")
	f.BoolVar(&plain, "plain", false, "one root subvolume and nothing ephemeral: a host that has not adopted the layout")
	f.BoolVar(&noLauncher, "no-launcher", false, "leave out /nix/var/deployer")
	f.BoolVar(&noTrust, "no-trust", false, "leave deploy out of nix trusted-users")
	f.StringVar(&s.Backend, "backend", s.Backend, "container, or vm: a kernel of its own, under emulation")
	return func() error {
		if plain {
			s.Layout = "plain"
		}
		s.Launcher, s.Trust = !noLauncher, !noTrust
		return s.check()
	}
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

func baseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "base", Short: "Make what all labs share (once per machine, under a minute)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := need("container"); err != nil {
				return err
			}
			s, err := defaultSpec().withHosts(nil)
			if err != nil {
				return err
			}
			return currentLab().base(s)
		},
	}
}

func upCommand() *cobra.Command {
	s := defaultSpec()
	cmd := &cobra.Command{Use: "up [NAME…]", Short: "Start hosts and wait until ssh answers (default: staging production)"}
	finish := specFlags(cmd, &s)
	cmd.RunE = func(_ *cobra.Command, names []string) error {
		if err := finish(); err != nil {
			return err
		}
		if err := need(s.Backend); err != nil {
			return err
		}
		hosts, err := s.withHosts(names)
		if err != nil {
			return err
		}
		l := currentLab()
		if err := l.up(hosts); err != nil {
			return err
		}
		if bootFilesystem() != "vfat" {
			fmt.Fprintln(os.Stderr, "lab: this kernel has no vfat: /boot of the hosts is ext4")
		}
		return l.child("status")
	}
	return cmd
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the lab: hosts, mounts, interfaces, everything", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return currentLab().down() },
	}
}

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the hosts and whether they run", Args: cobra.NoArgs,
		RunE: inLab(func(l lab, _ []string) error { return l.status() }),
	}
}

// inLab wraps what has to run where the hosts are.
func inLab(run func(lab, []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		l := currentLab()
		if done, err := l.within(); done {
			return err
		}
		return run(l, args)
	}
}

// inHost is inLab for commands whose first argument is a host.
func inHost(run func(m machine, args []string) error) func(*cobra.Command, []string) error {
	return inLab(func(l lab, args []string) error {
		m, err := l.machine(args[0])
		if err != nil {
			return err
		}
		return run(m, args[1:])
	})
}

func (l lab) status() error {
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

func execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec [--] CMD…", Short: "Run a command where the hosts can be reached by name", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, argv []string) error {
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
			env := l.env()
			for _, kv := range env { // the command is looked up in the lab's PATH
				if path, ok := strings.CutPrefix(kv, "PATH="); ok {
					os.Setenv("PATH", path)
				}
			}
			return foreground(dir, env, argv...)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func sshCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ssh [USER@]HOST [CMD…]", Short: "Log in to a host, as root unless USER is given", Args: cobra.MinimumNArgs(1),
		RunE: inLab(func(_ lab, argv []string) error { return foreground("", nil, append([]string{"ssh"}, argv...)...) }),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func enterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "enter HOST CMD…", Short: "Run a command inside a host without ssh, as root", Args: cobra.MinimumNArgs(2),
		RunE: inHost(machine.enterHost),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func netCommand() *cobra.Command {
	var jitter time.Duration
	var loss float64
	cmd := &cobra.Command{
		Use:   "net HOST cut | heal | delay TIME [--jitter TIME] [--loss PERCENT] | loss PERCENT | clear",
		Short: "Disturb a host's network, on the lab's side of the cable",
		Args:  cobra.RangeArgs(2, 3),
	}
	cmd.RunE = inHost(func(m machine, args []string) error { return m.network(args, jitter, loss) })
	cmd.Flags().DurationVar(&jitter, "jitter", 0, "change of the delay, either way")
	cmd.Flags().Float64Var(&loss, "loss", 0, "percent of the frames that are lost, each way")
	return cmd
}

func (m machine) network(args []string, jitter time.Duration, loss float64) error {
	switch {
	case args[0] == "cut" && len(args) == 1:
		return m.cut()
	case args[0] == "heal" && len(args) == 1:
		return m.heal()
	case args[0] == "clear" && len(args) == 1:
		return m.clearLink()
	case args[0] == "delay" && len(args) == 2:
		delay, err := time.ParseDuration(args[1])
		if err != nil {
			return fmt.Errorf("cannot use the delay %s: it is a time such as 50ms", args[1])
		}
		return m.disturb(delay, jitter, loss/100)
	case args[0] == "loss" && len(args) == 2:
		percent, err := strconv.ParseFloat(args[1], 64)
		if err != nil {
			return fmt.Errorf("cannot use the loss %s: it is a number of percent", args[1])
		}
		return m.disturb(0, 0, percent/100)
	}
	return fmt.Errorf("cannot do %q to the network: see lab net --help", strings.Join(args, " "))
}

func hostCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "host HOST start|stop|reboot|kill|freeze|thaw|powerloss|reset",
		Short: "Press a host's buttons; reset gives it a fresh disk",
		Args:  cobra.ExactArgs(2),
		RunE: inHost(func(m machine, args []string) error {
			action, ok := powerActions[args[0]]
			if !ok {
				return fmt.Errorf("cannot %s a host: see lab host --help", args[0])
			}
			return action(m)
		}),
	}
}

func fillCommand(name, short, script string) *cobra.Command {
	return &cobra.Command{
		Use: name + " HOST PATH", Short: short, Args: cobra.ExactArgs(2),
		RunE: inHost(func(m machine, args []string) error { return m.fill(script, args[0]) }),
	}
}

func waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait HOST…", Short: "Wait until ssh on the hosts lets people in", Args: cobra.MinimumNArgs(1),
		RunE: inLab(lab.wait),
	}
}

func projectCommand() *cobra.Command {
	var sets []string
	loader := ""
	cmd := &cobra.Command{
		Use: "project DIR", Short: "Write a demo project that deploys to staging and production, or change it by a new commit", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
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
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "SYSTEM=JSON merged into the system's options (RFC 7396), can be repeated")
	cmd.Flags().StringVar(&loader, "loader", "", "boot loader of the systems (default: that of the lab that is up)")
	return cmd
}

// hiddenCommands are what the lab starts itself as.
func hiddenCommands() []*cobra.Command {
	hidden := func(use string, args int, run func([]string) error) *cobra.Command {
		return &cobra.Command{Use: use, Hidden: true, Args: cobra.ExactArgs(args), RunE: func(_ *cobra.Command, a []string) error { return run(a) }}
	}
	return []*cobra.Command{
		hidden("_store", 0, func([]string) error { return currentLab().addUserland() }),
		hidden("_image", 2, func(a []string) error {
			var s spec
			if err := json.Unmarshal([]byte(a[0]), &s); err != nil {
				return err
			}
			return currentLab().image(s, a[1]).make()
		}),
		hidden("_holder", 1, func([]string) error { return currentLab().hold() }),
		hidden("_host", 1, func(a []string) error {
			m, err := currentLab().machine(a[0])
			if err != nil {
				return err
			}
			return m.play()
		}),
		hidden("_link", 5, func(a []string) error {
			delay, err := time.ParseDuration(a[0])
			jitter, err2 := time.ParseDuration(a[1])
			loss, err3 := strconv.ParseFloat(a[2], 64)
			if err != nil || err2 != nil || err3 != nil {
				return fmt.Errorf("internal error: _link %v", a)
			}
			return link{delay, jitter, loss}.serve(a[3], a[4])
		}),
	}
}

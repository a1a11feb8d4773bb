package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/pipeline"
	"github.com/hbohlen/deployer/runbooks"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [HOST...]", Short: "Check whether hosts are ready to be deployed to, and print what mends them; changes nothing",
		Example: "  deployer doctor\n  deployer doctor production --json",
		RunE:    func(c *cobra.Command, args []string) error { return a.doctor(c.Context(), args) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			p, err := a.loadProject()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return slices.Sorted(maps.Keys(p.Hosts)), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func (a *app) doctor(ctx context.Context, hosts []string) error {
	p, err := a.loadProject()
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		hosts = slices.Sorted(maps.Keys(p.Hosts))
	}
	tools, err := a.tools(ctx, p)
	if err != nil {
		return err
	}
	r, err := phases.NewRun(pipeline.Kinds, p, usual(hosts), tools)
	if err != nil {
		return err
	}
	var list []view.Checkup
	if found := r.Unready(ctx, ""); len(found) > 0 {
		c := &checks{}
		c.findings("flake", found)
		list = append(list, view.Checkup{Name: "project", Address: p.File, Checks: c.list})
	}
	for _, x := range r.Examine(ctx) {
		list = append(list, view.Checkup{Name: x.Name, Address: x.Conf.Address, Checks: checkup(x)})
		x.Drop()
	}
	if a.json {
		a.JSONDoc(list)
	} else {
		a.Doctor(list)
	}
	if view.Count(list, view.CheckFail) > 0 {
		return exitCode(phases.ExitPrecondition)
	}
	return nil
}

// usual is a runbook with the steps that every change of a host has.
func usual(hosts []string) *runbooks.Runbook {
	rb := &runbooks.Runbook{Name: "doctor", Phases: []*runbooks.Phase{{Kind: "build", Name: "build", Build: &runbooks.Build{Hosts: hosts}}}}
	for _, name := range hosts {
		rb.Phases = append(rb.Phases, &runbooks.Phase{Kind: "switch", Name: "switch-" + name, Switch: &runbooks.Switch{Host: name}})
	}
	return rb
}

type checks struct{ list []view.Checked }

func (c *checks) add(state, check, text string, hint ...string) {
	c.list = append(c.list, view.Checked{Check: check, State: state, Text: text, Hint: hint})
}

func (c *checks) ok(check, text string) { c.add(view.CheckOK, check, text) }
func (c *checks) warn(check, text string, hint ...string) {
	c.add(view.CheckWarn, check, text, hint...)
}
func (c *checks) fail(check, text string, hint ...string) {
	c.add(view.CheckFail, check, text, hint...)
}

func (c *checks) findings(check string, found []phases.Finding) {
	for _, f := range found {
		c.fail(check, f.What, f.Hint...)
	}
}

// checkup turns what was seen of a host into checks, in the order in which a
// change would meet them. What one of the steps says is said once.
func checkup(x phases.Examined) []view.Checked {
	c := &checks{}
	if x.Err != nil {
		c.noLogin(x.Err)
		return c.list
	}
	user, _ := x.Host.Login()
	c.ok("login", user+", by a host key that is known")
	for _, look := range []func(*checks, phases.Examined){
		switching, agentThere, stateDir, module, others, space, volumes, leftovers,
	} {
		look(c, x)
	}
	return c.list
}

func (c *checks) noLogin(err error) {
	check, he := "login", &host.Error{}
	if errors.As(err, &he) && he.Kind == host.HostKey {
		check = "host key"
	}
	c.fail(check, err.Error(), he.Hint...)
}

// switching is what the steps of a run say themselves.
func switching(c *checks, x phases.Examined) {
	c.findings("switch", x.Findings)
	switch {
	case len(x.Findings) > 0:
	case x.Seen.Trusted == nil:
		c.warn("switch", "whether its Nix daemon trusts the user could not be seen", on(x, "nix store info --json"))
	default:
		c.ok("switch", "nothing stands in its way")
	}
	if x.Seen.OS == "nixos" && len(x.Seen.Missing) > 0 {
		c.fail("programs", "not found: "+strings.Join(x.Seen.Missing, ", "), "# in the host's configuration: environment.systemPackages")
	}
}

func on(x phases.Examined, command string) string { return "ssh " + x.Conf.Address + " " + command }

func asRoot(x phases.Examined, command string) string {
	return "ssh root@" + x.Conf.Address + " '" + command + "'"
}

func agentThere(c *checks, x phases.Examined) {
	switch {
	case x.AgentErr != nil:
		c.fail("agent", x.AgentErr.Error(), on(x, "sudo -n "+agent.LauncherPath))
	case x.Agent:
		c.ok("agent", "on the host")
	case x.Seen.Launcher || x.Seen.Root:
		c.ok("agent", "not on the host yet, the first run puts it there; what only root sees was not looked at")
	}
}

// stateDir is where the agent keeps what a host must neither forget nor show.
func stateDir(c *checks, x phases.Examined) {
	switch d := x.Seen.StateDir; {
	case d == nil: // the agent makes it
	case d.Owner != 0 || d.Mode&0o077 != 0:
		c.fail("state", fmt.Sprintf("%s has owner %d and mode %04o: others could change what root executes", agent.Dir, d.Owner, d.Mode),
			asRoot(x, "find "+agent.Dir+" -ls"), asRoot(x, "chown root "+agent.Dir+"; chmod 0700 "+agent.Dir))
	case d.FS == "tmpfs" || d.FS == "ramfs":
		c.fail("state", agent.Dir+" is on "+d.FS+": it would not survive a boot", "# mount something that lasts at "+agent.Dir)
	case d.FS == "btrfs" && !d.Subvolume:
		c.warn("state", agent.Dir+" is no subvolume of its own: a snapshot of what it is in, put back, would put back what the agent remembers",
			asRoot(x, "cd /nix/var && mv deployer d && btrfs subvolume create deployer && chmod 0700 deployer && cp -a d/. deployer/ && rm -r d"))
	default:
		c.ok("state", agent.Dir+" is root's alone")
	}
}

func module(c *checks, x phases.Examined) {
	if x.Seen.Module {
		c.ok("module", "the guard outlives a reboot")
		return
	}
	c.warn("module", "the running system does not import deployer-host.nix: after a reboot there is no guard",
		"deployer init --module", "# and in the host's configuration: imports = [ ./deployer-host.nix ]; services.deployer-host.enable = true;")
}

func others(c *checks, x phases.Examined) {
	for _, name := range x.Seen.Foreign {
		c.warn("others", name+": another tool may switch this host, too", on(x, "find /run/current-system/etc/systemd/system /run/systemd/transient /tmp -maxdepth 1 -name "+name))
	}
}

// space wants room on /boot for one more kernel and initrd.
func space(c *checks, x phases.Examined) {
	for _, s := range x.Seen.Space {
		text, df := fmt.Sprintf("%s: %s of %s free", s.Path, view.Bytes(int64(s.Free)), view.Bytes(int64(s.Total))), on(x, "df -h "+s.Path)
		switch {
		case s.Path == "/boot" && s.Free < x.Seen.BootBytes:
			c.fail("space", text+", another kernel and initrd take "+view.Bytes(int64(x.Seen.BootBytes)), df, "# in the host's configuration: a lower boot.loader.*.configurationLimit")
		case s.Path == "/nix" && s.Free < 64<<20:
			c.fail("space", text, df)
		case s.Path == "/nix" && s.Free < s.Total/20:
			c.warn("space", text, df)
		case s.Path == "/boot" || s.Path == "/nix":
			c.ok("space", text)
		}
	}
}

// volumes is what only the agent sees of the file systems.
func volumes(c *checks, x phases.Examined) {
	c.findings("space", x.Cramped)
	for _, note := range x.Notes {
		c.warn("btrfs", note)
	}
}

// clockLimit is how far a host's clock may be off: times of both are compared.
const clockLimit = 5 * time.Second

// leftovers is what earlier work or time left behind; a lane that is open still
// is one of the steps' own findings.
func leftovers(c *checks, x phases.Examined) {
	if h := x.Seen.Holder; h != nil {
		c.fail("lock", fmt.Sprintf("%s has it for run %s, since %s", h.Owner, h.Run, h.Since.Format(time.RFC3339)), "deployer status")
	}
	if x.Skew.Abs() > clockLimit {
		c.warn("clock", fmt.Sprintf("off by %s, seen from here", x.Skew.Round(time.Second)), on(x, "timedatectl status"))
	} else {
		c.ok("clock", "as here")
	}
	if len(x.Seen.Pending) > 0 {
		c.warn("reboot", "pending: "+strings.Join(x.Seen.Pending, ", ")+" of the running system are not what was booted", asRoot(x, "systemctl reboot"))
	}
}

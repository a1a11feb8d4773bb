package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/backup"
)

func (a *app) snapshotSendCmd() *cobra.Command {
	return a.offHostCmd(&cobra.Command{
		Use: "send", Short: "Copy fresh snapshots to the backup host: only what changed since the last copy",
		Long: `Takes read-only snapshots of the subvolumes under backup.off-host in
deployer.yaml and sends them to the backup host, PATH/HOST/SNAPSHOT there. What
lies in its place is complete. The last one sent stays on its host: the next copy
starts from it. No deployment waits for a copy, nor a copy for one.`,
	}, func(ctx context.Context, r *phases.Run, v *backup.Vault) error {
		all := []backup.Sent{}
		err := a.each(r, func(l *phases.Lane) error {
			sent, err := v.Send(ctx, r, l, func(text string) { a.Notef("%s\n", view.Clean(text)) })
			all = append(all, sent...)
			return err
		})
		if a.json {
			a.JSONDoc(all)
		} else {
			a.Sent(all)
		}
		return err
	})
}

func (a *app) snapshotVerifyCmd() *cobra.Command {
	return a.offHostCmd(&cobra.Command{
		Use: "verify", Short: "Check the copies on the backup host, and whether the next one can start from the last; changes nothing",
	}, func(ctx context.Context, r *phases.Run, v *backup.Vault) error {
		chains := []backup.Chain{}
		wrong := 0
		err := a.each(r, func(l *phases.Lane) error {
			c, err := v.Verify(ctx, r, l)
			chains, wrong = append(chains, c), wrong+len(c.Wrong)
			return err
		})
		if a.json {
			a.JSONDoc(chains)
		} else {
			a.Chains(chains, r.Now(), zone(r.Project))
		}
		if err == nil && wrong > 0 {
			return exitCode(phases.ExitPrecondition)
		}
		return err
	})
}

// offHostCmd is a command on the backup host and the hosts that it is for.
func (a *app) offHostCmd(c *cobra.Command, do func(context.Context, *phases.Run, *backup.Vault) error) *cobra.Command {
	var only string
	c.Args = cobra.NoArgs
	c.Flags().StringVar(&only, "host", "", "this host alone")
	_ = c.RegisterFlagCompletionFunc("host", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		p, err := a.loadProject()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.Sorted(maps.Keys(p.Hosts)), cobra.ShellCompDirectiveNoFileComp
	})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := a.offHostRun(c.Context(), only)
		if err != nil {
			return err
		}
		v, err := backup.Open(c.Context(), r)
		if err != nil {
			return err
		}
		defer v.Drop()
		return do(c.Context(), r, v)
	}
	return c
}

// offHostRun has a lane for every host but one that is the backup host itself.
func (a *app) offHostRun(ctx context.Context, only string) (*phases.Run, error) {
	p, err := a.loadProject()
	if err != nil {
		return nil, err
	}
	tools, err := a.tools(ctx, p)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(p.Hosts)), func(name string) bool {
		self := p.Backup != nil && p.Backup.OffHost != nil && p.Backup.OffHost.Address == p.Hosts[name].Address
		return only != "" && name != only || only == "" && self
	})
	if len(names) == 0 && only != "" {
		return nil, usage(fmt.Errorf("deployer.yaml has no host %q", only))
	}
	r := &phases.Run{Project: p, Tools: tools}
	return r, a.lanes(r, names)
}

// each goes through the hosts; one that fails does not keep it from the others.
func (a *app) each(r *phases.Run, do func(*phases.Lane) error) error {
	all := &phases.Failure{Exit: phases.ExitPrecondition}
	var errs []error
	for _, l := range r.Lanes {
		if err := do(l); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.Name, err))
			all.Hint = append(all.Hint, phases.Hints(err)...)
		}
		l.Drop()
	}
	if all.Err = errors.Join(errs...); all.Err == nil {
		return nil
	}
	return all
}

package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/backup"
)

func (a *app) snapshotSendCmd() *cobra.Command {
	o := &snapshotsOptions{}
	c := &cobra.Command{
		Use: "send", Short: "Copy fresh snapshots to the backup host: only what changed since the last copy", Args: cobra.NoArgs,
		Long: `Takes read-only snapshots of the subvolumes under backup.off-host in
deployer.yaml and sends them to the backup host, PATH/HOST/SNAPSHOT there. What
lies in its place is complete. The last one sent stays on its host: the next copy
starts from it. No deployment waits for a copy, nor a copy for one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			all := []backup.Sent{}
			err := a.withVault(c.Context(), o.hosts, func(ctx context.Context, r *phases.Run, v *backup.Vault, l *phases.Lane) error {
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
		},
	}
	o.hostFlag(c)
	return c
}

func (a *app) snapshotVerifyCmd() *cobra.Command {
	o := &snapshotsOptions{}
	c := &cobra.Command{
		Use: "verify", Short: "Check the copies on the backup host, and whether the next can start from the last; changes nothing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			chains, code := []backup.Chain{}, exitCode(phases.ExitOK)
			err := a.withVault(c.Context(), o.hosts, func(ctx context.Context, r *phases.Run, v *backup.Vault, l *phases.Lane) error {
				chain, err := v.Verify(ctx, r, l)
				chains = append(chains, chain)
				if len(chain.Wrong) > 0 {
					code = phases.ExitPrecondition
				}
				return err
			})
			if a.json {
				a.JSONDoc(chains)
			} else {
				a.Chains(chains, time.Now())
			}
			if err != nil || code == phases.ExitOK {
				return err
			}
			return code
		},
	}
	o.hostFlag(c)
	return c
}

// withVault does something for each host, but not for one that is the backup
// host itself unless it is named. One that fails does not keep it from the others.
func (a *app) withVault(ctx context.Context, hosts []string, do func(context.Context, *phases.Run, *backup.Vault, *phases.Lane) error) error {
	return a.withHosts(ctx, hosts, func(ctx context.Context, r *phases.Run) error {
		v, err := backup.Open(ctx, r)
		if err != nil {
			return err
		}
		defer v.Drop()
		code := phases.ExitOK
		for _, l := range r.Lanes {
			if v.Is(l) && !slices.Contains(hosts, l.Name) {
				a.Notef("%s is the backup host itself, and left out\n", l.Name)
				continue
			}
			if err := do(ctx, r, v, l); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				code = max(code, a.exit(phases.At(l.Name, err)))
			}
		}
		if code == phases.ExitOK {
			return nil
		}
		return exitCode(code)
	})
}

package cli

import "github.com/spf13/cobra"

func (a *app) snapshotsCmd() *cobra.Command {
	c := &cobra.Command{Use: "snapshots", Short: "Snapshots and their copies on a backup host"}
	c.AddCommand(a.snapshotSendCmd(), a.snapshotVerifyCmd())
	return c
}

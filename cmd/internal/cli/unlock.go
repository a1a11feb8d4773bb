package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/phases"
)

func (a *app) unlockCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "unlock RUN --reason TEXT", Short: "Take a run's locks on its hosts away; its process can do nothing more there",
		Long: `What the run changed stays, and so does the way back: deployer rollback RUN.
For a run that is to go on or back there is no need of this: resume and abort
take its locks themselves.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error { return a.unlock(c.Context(), args[0], reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why; kept on the hosts")
	return c
}

func (a *app) unlock(ctx context.Context, run, reason string) error {
	if reason == "" {
		return usage(fmt.Errorf("a lock is not taken away without a reason"), a.again("--reason TEXT"))
	}
	p, err := a.loadProject()
	if err != nil {
		return err
	}
	tools, err := a.tools(ctx, p)
	if err != nil {
		return err
	}
	r := &phases.Run{Project: p, Tools: tools}
	var names []string
	for name := range p.Hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := a.lanes(r, names); err != nil {
		return err
	}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	freed, err := r.Unlock(ctx, run, reason)
	for _, name := range freed {
		a.Notef("%s: run %s has no lock any more\n", name, run)
	}
	if err == nil && len(freed) == 0 {
		err = &phases.Failure{Exit: phases.ExitRefused, Err: fmt.Errorf("no host is locked by run %s", run), Hint: []string{"deployer status"}}
	}
	return err
}

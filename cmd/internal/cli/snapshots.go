package cli

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

type snapshotsOptions struct {
	hosts        []string
	all, dryRun  bool
	yes          bool
	file, to     string
	reason, into string
}

func (a *app) snapshotsCmd() *cobra.Command {
	c := &cobra.Command{Use: "snapshots", Short: "List, compare, restore, prune and copy the snapshots on the hosts",
		Example: "  deployer snapshots list\n  deployer snapshots restore production SNAPSHOT --dry-run\n  deployer snapshots prune --dry-run"}
	c.AddCommand(a.snapshotsListCmd(), a.snapshotsDiffCmd(), a.snapshotsRestoreCmd(), a.snapshotsPruneCmd(), a.snapshotSendCmd(), a.snapshotVerifyCmd())
	return c
}

func (o *snapshotsOptions) hostFlag(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.hosts, "host", nil, "only this host; may be repeated")
}

func (a *app) snapshotsListCmd() *cobra.Command {
	o := &snapshotsOptions{}
	c := &cobra.Command{
		Use: "list", Short: "List the snapshots on the hosts, oldest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onHosts(c.Context(), o.hosts, func(ctx context.Context, r *phases.Run) error {
				var rows []view.SnapshotsOf
				for _, l := range r.Lanes {
					list, err := snapshotsOn(ctx, l, o.all)
					if err != nil {
						return phases.At(l.Name, err)
					}
					rows = append(rows, view.SnapshotsOf{Host: l.Name, Snapshots: list})
				}
				if a.json {
					a.JSONDoc(rows)
					return nil
				}
				a.Snapshots(rows, zone(r.Project))
				return nil
			})
		},
	}
	o.hostFlag(c)
	c.Flags().BoolVar(&o.all, "all", false, "also what snapper, btrbk and others made: it can be restored from, and is never deleted")
	return c
}

func (a *app) snapshotsDiffCmd() *cobra.Command {
	return &cobra.Command{
		Use: "diff HOST SNAPSHOT", Short: "Show what a restore of a snapshot would do to files", Args: cobra.ExactArgs(2), ValidArgsFunction: a.completeHosts,
		Long: "SNAPSHOT is what `snapshots list` shows, 4 characters of it or more, or a path\nthat its JSON has. For this a temporary snapshot is taken on the host, and deleted.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.onHosts(c.Context(), args[:1], func(ctx context.Context, r *phases.Run) error {
				to, err := pick(ctx, r.Lanes[0], args[1:])
				if err != nil {
					return err
				}
				if err := together(r.Lanes[0].Name, to); err != nil {
					return err
				}
				return a.showBack(ctx, r.Lanes[0], to, a.Streams)
			})
		},
	}
}

func (a *app) snapshotsRestoreCmd() *cobra.Command {
	o := &snapshotsOptions{}
	c := &cobra.Command{
		Use: "restore HOST SNAPSHOT…", Short: "Put subvolumes back as they are in snapshots, or a single file", Args: cobra.MinimumNArgs(2), ValidArgsFunction: a.completeHosts,
		Long: `All of the snapshots named come back, or none. Who uses the subvolumes is stopped
and started again; what is replaced is kept as a snapshot, and restoring that one
undoes the restore. The system stays what it is: deployer rollback brings both back.
SNAPSHOT is what "snapshots list" shows, 4 characters of it or more, or a path that
its JSON has.

With --file, one file or folder out of a snapshot; what is in its place is kept beside it.`,
		RunE: func(c *cobra.Command, args []string) error {
			file, to := c.Flags().Changed("file"), c.Flags().Changed("to")
			switch { // an empty one is a variable that was not set: never the whole subvolume
			case file && o.file == "":
				return usage(fmt.Errorf("--file is empty: it names what to take out of the snapshot"))
			case to && !file:
				return usage(fmt.Errorf("--to says where a single file goes: --file, which names it, is missing"))
			case to && (!path.IsAbs(o.to) || path.Clean(o.to) != o.to || o.to == "/"):
				return usage(fmt.Errorf("--to is what the file will be called on the host, an absolute path, not %q", o.to))
			case file && len(args) != 2:
				return usage(fmt.Errorf("--file takes one file out of one snapshot, and %d are named", len(args)-1))
			case file && o.reason+o.into != "":
				return usage(fmt.Errorf("--file leaves no record: --reason and --json-into are for whole subvolumes"))
			}
			return a.onHosts(c.Context(), args[:1], func(ctx context.Context, r *phases.Run) error {
				to, err := pick(ctx, r.Lanes[0], args[1:])
				if err != nil {
					return err
				}
				if o.file != "" {
					return a.restoreFile(ctx, r, to[0], o)
				}
				return a.restoreData(ctx, r, to, o)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.StringVar(&o.file, "file", "", "only this: a path in the snapshot without / at its begin, or what it is called on the host")
	f.StringVar(&o.to, "to", "", "where on the host; default: where it was")
	f.StringVar(&o.reason, "reason", "", "why; kept in the record")
	f.StringVar(&o.into, "json-into", "", "write every event to this file as JSON lines, too")
	return c
}

func (a *app) snapshotsPruneCmd() *cobra.Command {
	o := &snapshotsOptions{}
	c := &cobra.Command{
		Use: "prune", Short: "Delete the snapshots that deployer.yaml no longer keeps", Args: cobra.NoArgs,
		Long: `snapshots.keep in deployer.yaml says how many good runs' snapshots stay
(good_runs), for how long those of other runs (failed_days), and how many sets of
a host at most (most). While a file system has less room than a run needs, sets
go one by one from the oldest on, but for the last good run's. Never deleted: what an open run may go back to, what is
mounted or sent, and what deployer did not make. A good run whose snapshots
go can no longer be rolled back, and its old system may be garbage-collected.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onHosts(c.Context(), o.hosts, func(ctx context.Context, r *phases.Run) error { return a.prune(ctx, r, o) })
		},
	}
	o.hostFlag(c)
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say why each is kept or goes")
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return c
}

// onHosts reaches the hosts named, or all of the project, and does something.
func (a *app) onHosts(ctx context.Context, names []string, do func(context.Context, *phases.Run) error) error {
	return a.withHosts(ctx, names, func(ctx context.Context, r *phases.Run) error {
		for _, l := range r.Lanes {
			if err := r.Look(ctx, l); err != nil {
				return phases.At(l.Name, err)
			}
		}
		return do(ctx, r)
	})
}

// withHosts is onHosts for hosts that need not all be reached.
func (a *app) withHosts(ctx context.Context, names []string, do func(context.Context, *phases.Run) error) error {
	p, err := a.loadProject()
	if err != nil {
		return err
	}
	sig := interrupts(ctx, a.Streams)
	defer sig.release()
	sig.begin(&asCopying)
	sig.safe, a.sig = "systems and data are as they were; some snapshots may have been made or deleted", sig
	tools, err := a.tools(sig.ctx, p)
	if err != nil {
		return err
	}
	r := &phases.Run{ID: state.NewID(), Type: "rollback", Project: p, Runbook: &runbooks.Runbook{Name: "snapshots"}, Tools: tools}
	if len(names) == 0 {
		for name := range p.Hosts {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	if err := hasHosts(p, names); err != nil {
		return err
	}
	if err := a.lanes(r, names); err != nil {
		return err
	}
	defer func() {
		for _, l := range r.Lanes {
			l.Drop()
		}
	}()
	return sig.ended(do(sig.ctx, r))
}

func hasHosts(p *runbooks.Project, names []string) error {
	for _, name := range names {
		if p.Hosts[name] == nil {
			return usage(fmt.Errorf("deployer.yaml has no host %q", name))
		}
	}
	return nil
}

func snapshotsOn(ctx context.Context, l *phases.Lane, all bool) (list []agent.Snapshot, err error) {
	return list, l.Call(ctx, agent.OpSnapshots, agent.DiscoverArgs{Foreign: all}, &list)
}

const idLeast = 4 // characters of a UUID that name a snapshot

// pick finds the snapshots that were named.
func pick(ctx context.Context, l *phases.Lane, names []string) (to []agent.Snapshot, err error) {
	all, err := snapshotsOn(ctx, l, true)
	if err != nil {
		return nil, phases.At(l.Name, err)
	}
	for _, name := range names {
		fits := slices.DeleteFunc(slices.Clone(all), func(s agent.Snapshot) bool {
			return s.Path != path.Clean(name) && path.Base(s.Name) != name && (len(name) < idLeast || !strings.HasPrefix(s.UUID, name))
		})
		if len(fits) != 1 {
			err := fmt.Errorf("%d snapshots on %s are named %q", len(fits), l.Name, name)
			if len(name) < idLeast {
				err = fmt.Errorf("%q is too short for a snapshot's name: type at least %d characters of it", name, idLeast)
			}
			return nil, usage(err, "deployer snapshots list --all --host "+l.Name)
		}
		to = append(to, fits[0])
	}
	return to, nil
}

// showBack shows what would become of files.
func (a *app) showBack(ctx context.Context, l *phases.Lane, to []agent.Snapshot, s *view.Streams) error {
	list := []view.Data{}
	for _, snap := range to {
		d := previewOf(ctx, l, snap, true)
		d.Do, d.Reboot = phases.Restore, rebootFor(l, snap)
		list = append(list, d)
	}
	if a.json {
		a.JSONDoc(list)
		return nil
	}
	s.Back(l.Name, list)
	return nil
}

// rebootFor is the system that a lane is rebooted into for a snapshot, "" where
// it is not: a comparison restores nothing.
func rebootFor(l *phases.Lane, s agent.Snapshot) string {
	if s.Source == "/" && l.GoesBack(s) {
		return l.Recipe.Before.Boot.System
	}
	return ""
}

// inside is what a file that is called so, on the host or below the subvolume,
// is called in a snapshot of it.
func inside(from agent.Snapshot, file string) (string, error) {
	in := path.Clean(file)
	if path.IsAbs(in) {
		rest, ok := strings.CutPrefix(in+"/", strings.TrimSuffix(from.Source, "/")+"/")
		if !ok || from.Source == "" {
			return "", usage(fmt.Errorf("%s is not in %s, which the snapshot is of; a path without / at its begin is one in the snapshot", file, cmp.Or(from.Source, from.Path)))
		}
		in = path.Clean(rest)
	}
	if in == "." || !filepath.IsLocal(in) {
		return "", usage(fmt.Errorf("--file %q is no file in the snapshot; all of it comes back without --file", file))
	}
	return "/" + in, nil
}

// restoreFile is no run: what is in the way is kept, and nothing is to be undone.
func (a *app) restoreFile(ctx context.Context, r *phases.Run, from agent.Snapshot, o *snapshotsOptions) (err error) {
	l, args := r.Lanes[0], agent.FilesArgs{Snapshot: from, To: o.to}
	if args.Path, err = inside(from, o.file); err != nil {
		return err
	}
	if args.To == "" {
		if from.Source == "" {
			return usage(fmt.Errorf("nobody knows what %s is a snapshot of: say by --to where the file goes", from.Path))
		}
		args.To = filepath.Join(from.Source, args.Path)
	}
	var could agent.FilesResult
	if err := l.Call(ctx, agent.OpFilesDry, args, &could); err != nil {
		return phases.At(l.Name, err)
	}
	text := fmt.Sprintf("%s as it is in %s\n", view.Clean(args.To), view.Clean(from.Path+args.Path))
	would := l.Name + ": would put " + text
	if could.There {
		would += l.Name + ": what is there now would be kept beside it, under a name with the time\n"
	}
	switch {
	case o.dryRun && a.json:
		a.JSONDoc(args)
		return nil
	case o.dryRun:
		a.Printf("%s", would)
		return nil
	case !o.yes:
		a.Notef("%s", would)
	}
	ask := &asker{app: a}
	if err := ask.confirm(ctx, "Restore?", o.yes, "--yes"); err != nil {
		return err
	}
	var done agent.FilesResult
	err = r.Alone(ctx, l, func() error { return l.Call(ctx, agent.OpFiles, args, &done) })
	if err != nil {
		return phases.At(l.Name, err)
	}
	if a.json {
		a.JSONDoc(done)
		return nil
	}
	a.Printf("%s: %s", l.Name, text)
	if done.Kept != "" {
		a.Printf("%s: what it was is kept as %s\n", l.Name, view.Clean(done.Kept))
	}
	return nil
}

// restoreData is a rollback of data alone, with a recipe, a record and a
// verification like any other.
func (a *app) restoreData(ctx context.Context, r *phases.Run, to []agent.Snapshot, o *snapshotsOptions) error {
	l, human := r.Lanes[0], view.NewHuman(a.Streams, zone(r.Project))
	defer human.Close()
	human.Pause()
	if err := together(l.Name, to); err != nil {
		return err
	}
	if err := l.Call(ctx, agent.OpFacts, agent.FactsArgs{}, &l.Seen); err != nil {
		return phases.At(l.Name, err)
	}
	l.GoBackTo(to, r.Project.Snapshots)
	if o.dryRun || !o.yes {
		s := a.Streams
		if !o.dryRun {
			s = a.toErr()
		}
		if err := a.showBack(ctx, l, to, s); err != nil || o.dryRun {
			return err
		}
	}
	ask := &asker{app: a, human: human}
	if err := ask.confirm(ctx, "Restore?", o.yes, "--yes"); err != nil {
		return err
	}
	a.sig.begin(&asRollback)
	r.Runbook.Name = "snapshots restore"
	return a.undo(context.WithoutCancel(ctx), r, &rollbackOptions{reason: o.reason, jsonInto: o.into}, human)
}

// together refuses what no host could put back: a run that begins is to be able to end.
func together(host string, to []agent.Snapshot) error {
	for i, s := range to {
		if s.Origin == "" {
			why := "nobody knows what %s is a snapshot of"
			if s.Source != "" {
				why = "%s is of the top level of its file system, which has no name that could be exchanged"
			}
			return usage(fmt.Errorf(why+": it cannot be restored as a whole", s.Path),
				"deployer snapshots restore "+host+" "+s.UUID[:min(len(s.UUID), 8)]+" --file NAME --to PATH   # a part of it", "deployer snapshots list --all --host "+host)
		}
		if slices.ContainsFunc(to[:i], func(o agent.Snapshot) bool { return o.FSID == s.FSID && o.Origin == s.Origin }) {
			return usage(fmt.Errorf("/%s on %s is to be restored twice: of its snapshots, name one", strings.Trim(s.Origin, "/"), host), "deployer snapshots list --all --host "+host)
		}
	}
	return nil
}

func (a *app) prune(ctx context.Context, r *phases.Run, o *snapshotsOptions) error {
	r.Runbook.Name = "snapshots prune"
	tell := func(dry bool) error {
		var rows []view.Pruned
		for _, l := range r.Lanes {
			list, err := r.Prune(ctx, l, dry)
			if err != nil {
				return phases.At(l.Name, err)
			}
			rows = append(rows, view.Pruned{Host: l.Name, Snapshots: list})
		}
		switch {
		case a.json && dry == o.dryRun:
			a.JSONDoc(rows)
		case !a.json && dry && !o.dryRun:
			a.toErr().Prune(rows)
		case !a.json:
			a.Prune(rows)
		}
		return nil
	}
	if o.dryRun {
		return tell(true)
	}
	if !o.yes {
		if err := tell(true); err != nil {
			return err
		}
		ask := &asker{app: a}
		if err := ask.confirm(ctx, "Delete?", false, "--yes"); err != nil {
			return err
		}
	}
	return tell(false)
}

func (a *app) completeHosts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	p, err := a.loadProject()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for name := range p.Hosts {
		names = append(names, name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

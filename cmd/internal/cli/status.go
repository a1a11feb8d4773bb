package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

func (a *app) statusCmd() *cobra.Command {
	var offline bool
	c := &cobra.Command{
		Use: "status", Short: "Show where the last run stands and what the hosts run now; reads only", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.status(c.Context(), offline) },
	}
	c.Flags().BoolVar(&offline, "offline", false, "only the record: contact no host")
	return c
}

func (a *app) status(ctx context.Context, offline bool) error {
	p, err := a.loadProject()
	if err != nil {
		return err
	}
	rows, err := a.rows(p)
	if err != nil {
		return err
	}
	st := view.Status{Hosts: []view.HostStatus{}}
	if len(rows) > 0 {
		st.Last = &rows[0]
		st.Open = slices.DeleteFunc(slices.Clone(rows[1:]), func(r view.Row) bool { return !r.Open() })
	}
	if !offline {
		st.Hosts = a.hosts(ctx, p)
	}
	if a.json {
		a.JSONDoc(st)
		return nil
	}
	a.Status(st, zone(p))
	return nil
}

// hosts looks at every host of the project; one out of reach is a row too.
func (a *app) hosts(ctx context.Context, p *runbooks.Project) []view.HostStatus {
	tools, err := a.tools(ctx, p)
	if err != nil {
		return nil
	}
	r := &phases.Run{Project: p, Tools: tools}
	var out []view.HostStatus
	for name, conf := range p.Hosts {
		l := phases.NewLane(conf, tools.Agents)
		h := view.HostStatus{Name: name, Address: conf.Address}
		if err := r.Look(ctx, l); err != nil {
			h.Problem = err.Error()
		} else {
			h.Facts = &l.Seen
			l.Drop()
		}
		out = append(out, h)
	}
	view.SortHosts(out)
	return out
}

// rows are the project's runs, newest first.
func (a *app) rows(p *runbooks.Project) ([]view.Row, error) {
	store, err := state.OpenStore(state.ProjectKey(p.Dir))
	if err != nil {
		return nil, err
	}
	all, err := store.Runs()
	if err != nil {
		return nil, err
	}
	rows := []view.Row{}
	for _, s := range all {
		d, err := store.Find(s.ID)
		if err != nil {
			return nil, err
		}
		row, _, err := readRun(d)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err == nil && row.ID != "" { // else it ended before its first record
			rows = append(rows, row)
		}
	}
	view.MarkUndone(rows)
	return rows, nil
}

func (a *app) historyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "history", Short: "List the project's runs, newest first", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := a.loadProject()
			if err != nil {
				return err
			}
			rows, err := a.rows(p)
			if err != nil {
				return err
			}
			if a.json {
				a.JSONDoc(rows)
				return nil
			}
			a.History(rows, zone(p))
			return nil
		},
	}
}

// find is the run named, or the latest one.
func (a *app) find(id string) (*runbooks.Project, *state.RunDir, error) {
	p, err := a.loadProject()
	if err != nil {
		return nil, nil, err
	}
	store, err := state.OpenStore(state.ProjectKey(p.Dir))
	if err != nil {
		return nil, nil, err
	}
	if id == "" {
		id = "last"
	}
	d, err := store.Find(id)
	if err != nil {
		return nil, nil, usage(err, "deployer history")
	}
	return p, d, nil
}

func (a *app) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show [RUN]", Short: "Show all steps of a run, the latest one by default", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			p, d, err := a.find(arg(args))
			if err != nil {
				return err
			}
			row, _, err := readRun(d)
			if err != nil {
				return err
			}
			if row.Late, err = state.Late(d.Path); err != nil {
				return err
			}
			if a.json {
				a.JSONDoc(row)
				return nil
			}
			a.Show(row, zone(p))
			return nil
		},
	}
}

func (a *app) reportCmd() *cobra.Command {
	return &cobra.Command{
		Use: "report [RUN]", Short: "Print a run as Markdown, for a ticket", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			_, d, err := a.find(arg(args))
			if err != nil {
				return err
			}
			row, plan, err := readRun(d)
			if err != nil {
				return err
			}
			a.Printf("%s", view.Report(row, plan, time.UTC))
			return nil
		},
	}
}

func (a *app) logsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "logs [RUN [FILE]]", Short: "Print what hosts and systems said during a run", Args: cobra.MaximumNArgs(2), ValidArgsFunction: a.completeRuns,
		Long: "Without FILE it lists what was kept; with one (or a part of its name) it prints that.",
		RunE: func(_ *cobra.Command, args []string) error {
			_, d, err := a.find(arg(args))
			if err != nil {
				return err
			}
			if len(args) < 2 {
				return a.listLogs(d)
			}
			return a.printLog(d, args[1])
		},
	}
}

func (a *app) logFiles(d *state.RunDir) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(d.OutputDir(), "*"))
	return append(files, d.LogPath()), err
}

func (a *app) listLogs(d *state.RunDir) error {
	files, err := a.logFiles(d)
	if err != nil {
		return err
	}
	type row struct {
		Name  string `json:"name"`
		Bytes int64  `json:"bytes"`
	}
	rows := []row{}
	for _, f := range files {
		info, err := os.Stat(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		rows = append(rows, row{filepath.Base(f), info.Size()})
	}
	if a.json {
		a.JSONDoc(rows)
		return nil
	}
	for _, r := range rows {
		a.Printf("%10s  %s\n", view.Bytes(r.Bytes), r.Name)
	}
	return nil
}

func (a *app) printLog(d *state.RunDir, name string) error {
	files, err := a.logFiles(d)
	if err != nil {
		return err
	}
	for _, f := range files {
		if ok, _ := filepath.Match("*"+name+"*", filepath.Base(f)); !ok {
			continue
		}
		file, err := os.Open(f)
		if err != nil {
			return err
		}
		defer file.Close()
		sc := bufio.NewScanner(file)
		sc.Buffer(nil, 8<<20)
		for sc.Scan() {
			a.Printf("%s\n", view.Clean(sc.Text()))
		}
		return sc.Err()
	}
	return usage(fmt.Errorf("run %s has no log %q", d.ID, name), "deployer logs "+d.ID)
}

func (a *app) completeRuns(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	p, err := a.loadProject()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	store, err := state.OpenStore(state.ProjectKey(p.Dir))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := store.Runs()
	var ids []string
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/btrfs"
	plugins "github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/notify"
	"github.com/hbohlen/deployer/plugins/sdk"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// shipped are the plugins that deployer is itself, as processes of their own.
var shipped = map[string]struct {
	plugin func() sdk.Plugin
	about  string
}{
	"btrfs":   {btrfs.Plugin, "read-only snapshots of declared subvolumes"},
	"webhook": {notify.Webhook, "notifications by signed HTTP POST"},
	"file":    {notify.File, "notifications as lines of a file"},
}

// pluginServeCmd is the hidden verb that a shipped plugin is started by.
func pluginServeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "plugin-serve NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, ok := shipped[args[0]]
			if !ok {
				return usage(fmt.Errorf("no plugin %q ships with deployer", args[0]))
			}
			sdk.Serve(p.plugin())
			return nil
		},
	}
}

func (a *app) pluginsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "plugins", Short: "List the plugins: shipped ones, and those that deployer.yaml names", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.listPlugins() },
	}
}

func (a *app) listPlugins() error {
	type row struct{ Name, Source, About string }
	var rows []row
	for name, p := range shipped {
		rows = append(rows, row{name, "shipped", p.about})
	}
	if p, err := a.loadProject(); err == nil {
		for name, c := range p.Plugins {
			rows = append(rows, row{name, c.Path, "sha256 " + c.SHA256})
		}
	}
	slices.SortFunc(rows, func(x, y row) int { return strings.Compare(x.Name, y.Name) })
	if a.json {
		a.JSONDoc(rows)
		return nil
	}
	for _, r := range rows {
		a.Printf("%-12s %-10s %s\n", r.Name, r.Source, r.About)
	}
	return nil
}

// allowed is what plugins may be given at all.
var allowed = []string{agent.OpFacts, agent.OpDiscover, agent.OpSnapshot, agent.OpSnapshots}

// launch starts a plugin: a shipped one, or one that deployer.yaml names by path
// and digest. Nothing else is ever started.
func launch(ctx context.Context, r *phases.Run, kind string, config any, secret plugins.SecretFunc) (*plugins.Plugin, error) {
	spec, err := specOf(r.Project, kind)
	if err != nil {
		return nil, err
	}
	spec.Config, spec.RunDir = mustJSON(config), r.Dir.Path
	return plugins.Launch(ctx, spec, plugins.Services{
		Operator: operator{r}, Allow: allowed, Writes: agent.Writes, Secret: secret, Logger: r.Tools.Log.Named(kind),
		Audit: func(c plugins.Call) {
			r.Tools.Log.Info("plugin call", zap.String("plugin", c.Plugin), zap.String("name", c.Name), zap.String("host", c.Host),
				zap.String("operation", c.Operation), zap.Bool("write", c.Write), zap.Bool("refused", c.Refused), zap.String("error", c.Error), zap.Duration("took", c.Took))
		},
	})
}

func specOf(p *runbooks.Project, kind string) (plugins.Spec, error) {
	if _, ok := shipped[kind]; ok {
		return plugins.Self(kind)
	}
	c := p.Plugins[kind]
	if c == nil {
		return plugins.Spec{}, fmt.Errorf("there is no plugin %q: none ships under that name, and `plugins:` in deployer.yaml has none", kind)
	}
	return plugins.Spec{Name: kind, Path: within(p.Dir, c.Path), SHA256: c.SHA256}, nil
}

// operator runs typed operations on a run's hosts for plugins.
type operator struct{ run *phases.Run }

// Operate implements plugins.Operator.
func (o operator) Operate(ctx context.Context, host, op string, args json.RawMessage) (json.RawMessage, error) {
	l := o.run.LaneOf(host)
	if l == nil {
		return nil, fmt.Errorf("there is no host %q in this run", host)
	}
	return l.Raw(ctx, op, args)
}

// snapshots is the snapshot plugin behind core's interface. It is started with
// the run, beside other work, and waited for when it is first needed.
type snapshots struct {
	start func() (*plugins.Plugin, error)
}

func newSnapshots(ctx context.Context, r *phases.Run) *snapshots {
	s := &snapshots{start: sync.OnceValues(func() (*plugins.Plugin, error) { return launch(ctx, r, "btrfs", struct{}{}, nil) })}
	go func() { _, _ = s.start() }()
	return s
}

// Close ends the plugin.
func (s *snapshots) Close() {
	if p, err := s.start(); err == nil {
		_ = p.Close(context.Background())
	}
}

func request(req phases.SnapshotRequest) plugins.SnapshotRequest {
	out := plugins.SnapshotRequest{Run: req.Run, HostRef: req.Host, OperationID: req.Op, Dir: req.Settings.Dir,
		Stamp: req.Stamp.UTC().Format("20060102T150405Z"), Generation: req.Generation}
	for path, c := range req.Settings.Subvolumes {
		out.Subvolumes = append(out.Subvolumes, plugins.Subvolume{Path: path, OnRollback: c.OnRollback, Pause: c.Pause, Stop: c.Stop})
	}
	slices.SortFunc(out.Subvolumes, func(x, y plugins.Subvolume) int { return strings.Compare(x.Path, y.Path) })
	return out
}

// Plan implements phases.Snapshotter.
func (s *snapshots) Plan(ctx context.Context, req phases.SnapshotRequest) (phases.SnapshotPlan, error) {
	p, err := s.start()
	if err != nil {
		return phases.SnapshotPlan{}, err
	}
	plan, err := p.Plan(ctx, request(req))
	return phases.SnapshotPlan{Problems: plan.Problems}, err
}

// Create implements phases.Snapshotter.
func (s *snapshots) Create(ctx context.Context, req phases.SnapshotRequest) (agent.SnapshotSet, []agent.Operation, error) {
	p, err := s.start()
	if err != nil {
		return agent.SnapshotSet{}, nil, err
	}
	res, err := p.Create(ctx, request(req))
	return res.Set, res.Recipe, err
}

// notifyWithin bounds all notifications of a run together.
const notifyWithin = 15 * time.Second

// notifyAll tells every receiver that wants to know how a run ended, side by
// side. A notification that fails is recorded; it never fails a deployment.
func notifyAll(ctx context.Context, r *phases.Run, log *phases.Log, o *phases.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, notifyWithin)
	defer cancel()
	ev := eventOf(r, o)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed *multierror.Error
	for name, conf := range r.Project.Notify {
		if !slices.Contains(conf.Events, ev.Kind) {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			detail, err := notifyOne(ctx, r, conf, ev)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = multierror.Append(failed, fmt.Errorf("%s: %w", name, err))
				return
			}
			_ = log.Record(state.Record{Kind: state.Notified, Text: name + " was told: " + ev.Title, Reason: detail}, nil)
		}()
	}
	wg.Wait()
	if failed != nil {
		for _, err := range failed.Errors {
			_ = log.Record(state.Record{Kind: state.NotifyFailed, Reason: err.Error()}, nil)
		}
	}
}

// eventOf is the one notification of a run.
func eventOf(r *phases.Run, o *phases.Outcome) plugins.Event {
	ev := plugins.Event{
		ID: r.ID + ".finished", Run: r.ID, Runbook: r.Runbook.Name, Kind: "run", Severity: "info", Time: time.Now().UTC(),
		Title: fmt.Sprintf("%s: %s", r.Runbook.Name, o.Status), ExitCode: &o.Exit, Fields: map[string]string{"revision": r.Revision},
	}
	for host, status := range o.Lanes {
		ev.Fields["host."+host] = string(status)
	}
	if o.Failure != nil {
		ev.Text, ev.Severity = o.Failure.Error(), "warning"
	}
	switch {
	case o.Exit >= phases.ExitStuck:
		ev.Kind, ev.Severity = "rollback", "critical"
	case o.Status == state.RolledBack:
		ev.Kind = "rollback"
	case o.Exit == phases.ExitUnhealthy:
		ev.Kind = "alert"
	}
	return ev
}

func notifyOne(ctx context.Context, r *phases.Run, conf *runbooks.Notify, ev plugins.Event) (detail string, err error) {
	p, err := launch(ctx, r, conf.Kind, notifyConfig(r.Project, conf), secretsOf(r.Project, conf))
	if err != nil {
		return "", err
	}
	defer func() { _ = p.Close(context.WithoutCancel(ctx)) }()
	return p.Notify(ctx, ev)
}

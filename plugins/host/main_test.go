package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// The test binary is also every process that the tests start: plugins that
// behave on cue, and a deployer that starts one.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin-serve" {
		serve(os.Args[2])
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "parent" {
		parent()
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func serve(name string) {
	switch name {
	case "garbage":
		fmt.Fprintln(os.Stderr, "cannot find libfoo.so")
		fmt.Println("welcome")
	case "liar":
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  proto.Handshake,
			VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {proto.Set: liar{}}},
			GRPCServer:       plugin.DefaultGRPCServer,
		})
	case "greedy":
		sdk.Serve(sdk.Plugin{Name: "greedy", Operations: []string{agent.OpExec}})
	case "asker":
		sdk.Serve(asker())
	default:
		a := &actor{}
		sdk.Serve(sdk.Plugin{Name: name, Version: "1.2.3", Notifier: a, Snapshotter: a, Operations: []string{agent.OpDiscover, agent.OpSnapshot}, Configure: a.configure})
	}
}

// parent is a deployer that is killed while its plugin works.
func parent() {
	spec, err := host.Self("actor")
	if err != nil {
		panic(err)
	}
	spec.RunDir = os.Args[2]
	p, err := host.Launch(context.Background(), spec, host.Services{Allow: []string{agent.OpDiscover, agent.OpSnapshot}})
	if err != nil {
		panic(err)
	}
	pid, err := p.Notify(context.Background(), host.Event{ID: "e", Title: "pid"})
	fmt.Println(pid, err)
	if os.Args[3] == "busy" {
		_, _ = p.Notify(context.Background(), host.Event{ID: "e", Title: "hang"})
	}
	time.Sleep(time.Minute)
}

// actor does what the title of an event, or the run of a request, tells it.
type actor struct {
	core *sdk.Core
	once string // a file: what it says was done already by an earlier process
}

func (a *actor) configure(_ context.Context, config json.RawMessage, core *sdk.Core) error {
	a.core = core
	_ = json.Unmarshal(config, &a.once)
	if a.once == "refuse" {
		return &sdk.Error{Code: "config", Message: "once is wrong", Hint: []string{"leave it out"}}
	}
	return nil
}

func (a *actor) first() bool {
	f, err := os.OpenFile(a.once, os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		f.Close()
	}
	return err == nil
}

func (a *actor) act(ctx context.Context, cue string) (string, error) {
	switch cue {
	case "pid":
		return strconv.Itoa(os.Getpid()), nil
	case "env":
		return strings.Join(os.Environ(), "\n"), nil
	case "log":
		hclog.Default().Warn("hello", "answer", 42)
	case "panic":
		panic("on cue")
	case "fail":
		return "", fmt.Errorf("outer: %w", &sdk.Error{Code: "busy", Message: "inner", Hint: []string{"wait"}})
	case "unavailable":
		return "", status.Error(codes.Unavailable, "its pager is down")
	case "hang":
		select {} // deaf to its context
	case "slow":
		time.Sleep(300 * time.Millisecond)
	case "crash":
		go panic("out of cheese")
		select {}
	case "crash-once":
		if a.first() {
			os.Exit(3)
		}
	}
	return strconv.Itoa(os.Getpid()), nil
}

func (a *actor) Notify(ctx context.Context, e sdk.Event) (string, error) {
	return a.act(ctx, e.Title)
}

func (a *actor) Plan(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotPlan, error) {
	_, err := a.act(ctx, req.Run)
	if err == nil {
		err = a.core.Operate(ctx, req.HostRef, req.Dir, struct{}{}, nil)
	}
	return sdk.SnapshotPlan{}, err
}

func (a *actor) Create(ctx context.Context, req sdk.SnapshotRequest) (sdk.SnapshotResult, error) {
	switch req.Run {
	case "recipe":
		return sdk.SnapshotResult{Recipe: json.RawMessage(`[{"op": "units", "units": ["a.service"]}]`)}, nil
	case "bad-recipe":
		return sdk.SnapshotResult{Recipe: []any{map[string]string{"rm": "-rf /"}}}, nil
	case "no-recipe":
		return sdk.SnapshotResult{Recipe: "rm -rf /"}, nil
	}
	err := a.core.Operate(ctx, req.HostRef, agent.OpSnapshot, map[string]string{"stamp": req.Stamp, "id": req.OperationID}, nil)
	if err == nil {
		_, err = a.act(ctx, req.Run)
	}
	return sdk.SnapshotResult{}, err
}

// asker asks core for what the title of an event says.
func asker() sdk.Plugin {
	a := &asking{}
	return sdk.Plugin{
		Name: "asker", Version: "1", Notifier: a, Snapshotter: nil, Secrets: []string{"token", "unset", "broken"}, Operations: []string{agent.OpDiscover},
		Configure: func(_ context.Context, _ json.RawMessage, core *sdk.Core) error { a.core = core; return nil },
	}
}

type asking struct{ core *sdk.Core }

func (a *asking) Notify(ctx context.Context, e sdk.Event) (string, error) {
	if op, ok := strings.CutPrefix(e.Title, "op:"); ok {
		return "", a.core.Operate(ctx, e.Text, op, nil, nil)
	}
	return a.core.Secret(ctx, e.Title)
}

// liar advertises what it does not serve.
type liar struct{ plugin.NetRPCUnsupportedPlugin }

func (liar) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServer(s, lies{})
	return nil
}

func (liar) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("no client")
}

type lies struct {
	pluginv1.UnimplementedPluginServer
}

func (lies) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return &pluginv1.DescribeResponse{Name: "liar", Version: "1", Capabilities: []string{proto.Notifier, "teleporter"}}, nil
}

func (lies) Configure(context.Context, *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	return &pluginv1.ConfigureResponse{}, nil
}

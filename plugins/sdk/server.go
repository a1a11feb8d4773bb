package sdk

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// Server is p as go-plugin serves it: for tests that serve it in their own process.
func Server(p Plugin) plugin.Plugin { return &entry{plugin: p} }

type entry struct {
	plugin.NetRPCUnsupportedPlugin
	plugin Plugin
}

func (e *entry) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServer(s, &server{plugin: e.plugin, broker: broker})
	if e.plugin.Notifier != nil {
		pluginv1.RegisterNotifierServer(s, &notifier{Notifier: e.plugin.Notifier})
	}
	if e.plugin.Snapshotter != nil {
		pluginv1.RegisterSnapshotterServer(s, &snapshotter{Snapshotter: e.plugin.Snapshotter})
	}
	return nil
}

func (*entry) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("internal error: the sdk is no client")
}

// server answers what every plugin is asked.
type server struct {
	pluginv1.UnimplementedPluginServer
	plugin Plugin
	broker *plugin.GRPCBroker
}

func (s *server) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return &pluginv1.DescribeResponse{
		Name:         s.plugin.Name,
		Version:      s.plugin.Version,
		Capabilities: capabilities(s.plugin),
		Operations:   s.plugin.Operations,
		Secrets:      s.plugin.Secrets,
		Schema:       s.plugin.Schema,
	}, nil
}

func capabilities(p Plugin) []string {
	var names []string
	if p.Notifier != nil {
		names = append(names, proto.Notifier)
	}
	if p.Snapshotter != nil {
		names = append(names, proto.Snapshotter)
	}
	return names
}

func (s *server) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	core, err := dialCore(s.broker, req.GetCore())
	if err != nil {
		return nil, err
	}
	if s.plugin.Configure != nil {
		if err := s.plugin.Configure(ctx, req.GetConfig(), core); err != nil {
			return nil, err
		}
	}
	return &pluginv1.ConfigureResponse{}, nil
}

func (s *server) Health(ctx context.Context, _ *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if s.plugin.Health == nil {
		return &pluginv1.HealthResponse{}, nil
	}
	if err := s.plugin.Health(ctx); err != nil {
		return &pluginv1.HealthResponse{Problem: err.Error()}, nil
	}
	return &pluginv1.HealthResponse{}, nil
}

type notifier struct {
	pluginv1.UnimplementedNotifierServer
	Notifier
}

func (n *notifier) Notify(ctx context.Context, req *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
	delivery, err := n.Notifier.Notify(ctx, req.GetEvent())
	if err != nil {
		return nil, err
	}
	return &pluginv1.NotifyResponse{Delivery: delivery}, nil
}

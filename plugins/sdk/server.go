package sdk

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// Entry is p as go-plugin serves it: for tests that serve it in their own process.
func Entry(p Plugin) *proto.Entry {
	return &proto.Entry{Serve: func(broker *plugin.GRPCBroker, s *grpc.Server) {
		served := &server{plugin: p, broker: broker}
		pluginv1.RegisterPluginServer(s, served)
		if p.Notifier != nil {
			served.capabilities = append(served.capabilities, proto.Notifier)
			pluginv1.RegisterNotifierServer(s, served)
		}
		if p.Snapshotter != nil {
			served.capabilities = append(served.capabilities, proto.Snapshotter)
			pluginv1.RegisterSnapshotterServer(s, served)
		}
	}}
}

type server struct {
	pluginv1.UnimplementedPluginServer
	pluginv1.UnimplementedNotifierServer
	pluginv1.UnimplementedSnapshotterServer
	plugin       Plugin
	capabilities []string
	broker       *plugin.GRPCBroker
}

func (s *server) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	p := s.plugin
	return &pluginv1.DescribeResponse{Name: p.Name, Version: p.Version, Capabilities: s.capabilities, Operations: p.Operations, Secrets: p.Secrets}, nil
}

func (s *server) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	conn, err := s.broker.DialWithOptions(req.GetCore(), grpc.WithIdleTimeout(0))
	if err != nil {
		return nil, fmt.Errorf("cannot reach core: %w", err)
	}
	if s.plugin.Configure != nil {
		err = s.plugin.Configure(ctx, req.GetConfig(), &Core{pluginv1.NewCoreClient(conn)})
	}
	return &pluginv1.ConfigureResponse{}, err
}

func (s *server) Notify(ctx context.Context, req *pluginv1.Request) (*pluginv1.Response, error) {
	return answer(ctx, req, s.plugin.Notifier.Notify)
}

func (s *server) Plan(ctx context.Context, req *pluginv1.Request) (*pluginv1.Response, error) {
	return answer(ctx, req, s.plugin.Snapshotter.Plan)
}

func (s *server) Create(ctx context.Context, req *pluginv1.Request) (*pluginv1.Response, error) {
	return answer(ctx, req, s.plugin.Snapshotter.Create)
}

func answer[In, Out any](ctx context.Context, req *pluginv1.Request, do func(context.Context, In) (Out, error)) (*pluginv1.Response, error) {
	var in In
	if err := json.Unmarshal(req.GetJson(), &in); err != nil {
		return nil, err
	}
	out, err := do(ctx, in)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(out)
	return &pluginv1.Response{Json: data}, err
}

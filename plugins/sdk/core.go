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

// core asks deployer, over the one connection that the broker gives.
type core struct {
	host    pluginv1.HostClient
	secrets pluginv1.SecretsClient
}

func dialCore(broker *plugin.GRPCBroker, id uint32) (*core, error) {
	conn, err := broker.DialWithOptions(id, grpc.WithIdleTimeout(0))
	if err != nil {
		return nil, fmt.Errorf("cannot reach core: %w", err)
	}
	return &core{host: pluginv1.NewHostClient(conn), secrets: pluginv1.NewSecretsClient(conn)}, nil
}

func (c *core) Operate(ctx context.Context, ref, op string, args, result any) error {
	data, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("cannot encode the arguments of %s: %w", op, err)
	}
	resp, err := c.host.Operate(ctx, &pluginv1.OperateRequest{HostRef: ref, Op: op, Args: data})
	if err != nil {
		return failure(ctx, err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(resp.GetResult(), result); err != nil {
		return fmt.Errorf("cannot read the result of %s: %w", op, err)
	}
	return nil
}

func (c *core) Secret(ctx context.Context, name string) (string, error) {
	resp, err := c.secrets.Get(ctx, &pluginv1.GetRequest{Name: name})
	if err != nil {
		return "", failure(ctx, err)
	}
	return resp.GetValue(), nil
}

// failure keeps the code, and takes the gRPC status off: a status that is
// passed on would look like one of the plugin's own.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return proto.ErrorOf(err)
}

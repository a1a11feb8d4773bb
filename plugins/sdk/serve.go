package sdk

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
)

// Serve is the whole main of a plugin. It returns when deployer is done with it.
func Serve(p Plugin) {
	signal.Ignore(syscall.SIGPIPE)
	if os.Getenv(proto.Handshake.MagicCookieKey) == proto.Handshake.MagicCookieValue {
		go exitWithParent(os.Getppid())
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	hclog.SetDefault(logger)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  proto.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {proto.Set: Entry(p)}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.UnaryInterceptor(answers))...)
		},
		Logger: logger,
	})
}

// exitWithParent ends the process when the one that started it is gone. The
// multiplexed connection notices as well, but only once it was made.
func exitWithParent(parent int) {
	for os.Getppid() == parent {
		time.Sleep(300 * time.Millisecond)
	}
	os.Exit(1)
}

// answers gives every error the form that keeps code and hints, so that no
// answer looks like a broken connection, and turns a panic into one.
func answers(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if value := recover(); value != nil {
			hclog.Default().Error("panic", "method", info.FullMethod, "value", fmt.Sprint(value), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", value)
		}
		if err != nil {
			err = proto.ErrorOf(err)
		}
	}()
	return next(ctx, req)
}

package sdk

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
)

// Handshake is what both sides compare first.
var Handshake = plugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue}

// Serve is the whole main of a plugin. It returns when deployer is done with it.
func Serve(p Plugin) {
	signal.Ignore(syscall.SIGPIPE)
	if os.Getenv(proto.CookieKey) == proto.CookieValue {
		remove := privateSockets()
		defer remove()
		go exitWithParent(os.Getppid(), remove)
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	hclog.SetDefault(logger)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {proto.Set: Server(p)}},
		GRPCServer:       newGRPCServer,
		Logger:           logger,
	})
}

// privateSockets finds a folder for go-plugin's sockets, or makes one, and
// clears it in the end: go-plugin leaves one behind per start when it multiplexes.
func privateSockets() (remove func()) {
	dir := os.Getenv(plugin.EnvUnixSocketDir)
	if dir == "" {
		dir, _ = os.MkdirTemp("", "s") // go-plugin meets the same error and reports it
		os.Setenv(plugin.EnvUnixSocketDir, dir)
	}
	return func() {
		sockets, _ := filepath.Glob(filepath.Join(dir, "plugin*"))
		for _, socket := range sockets {
			os.Remove(socket)
		}
		os.Remove(dir)
	}
}

// exitWithParent ends the process when the one that started it is gone. The
// multiplexed connection notices as well, but only once it was made.
func exitWithParent(parent int, cleanup func()) {
	for os.Getppid() == parent {
		time.Sleep(300 * time.Millisecond)
	}
	cleanup()
	os.Exit(1)
}

func newGRPCServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(4<<20),
		grpc.UnaryInterceptor(unaryPanics),
		grpc.StreamInterceptor(streamPanics),
	)...)
}

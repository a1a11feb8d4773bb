// Package plugintest is the conformance suite for plugins, and what tests of
// them stand on. It serves a plugin in the test's own process and calls it as
// deployer does: over gRPC, multiplexed, with core on the other end of the
// broker. A plugin's own test is a few lines:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Notifier(t, newPlugin, json.RawMessage(`{"path": "/tmp/x"}`), host.Services{})
//	}
package plugintest

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/proto"
	"github.com/hbohlen/deployer/plugins/sdk"
)

func init() { hclog.DefaultOutput = io.Discard } // else go-plugin tells of each step

// Connect serves p and launches it as deployer would, but for the process.
func Connect(t testing.TB, p sdk.Plugin, config json.RawMessage, services host.Services) (*host.Plugin, error) {
	t.Helper()
	if services.Allow == nil {
		services.Allow = p.Operations
	}
	dir, err := os.MkdirTemp("", "p-") // for the socket; t.TempDir's path may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	both := sdk.Entry(p)
	both.Connect = func(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
		return host.Attach(ctx, broker, conn, host.Spec{Name: p.Name, Config: config}, services)
	}
	client, _ := plugin.TestPluginGRPCConn(t, true, map[string]plugin.Plugin{proto.Set: both})
	t.Cleanup(func() { _ = client.Close() }) // stops the server as well
	raw, err := client.Dispense(proto.Set)
	if err != nil {
		return nil, err
	}
	return raw.(*host.Plugin), nil
}

// connected is Connect for a plugin that has to start and say what it is.
func connected(t *testing.T, p sdk.Plugin, config json.RawMessage, services host.Services, capability string) *host.Plugin {
	t.Helper()
	launched, err := Connect(t, p, config, services)
	if err != nil {
		t.Fatalf("cannot launch it: %v", err)
	}
	if info := launched.Info(); info.Version == "" || !slices.Contains(info.Capabilities, capability) {
		t.Fatalf("it needs a version, and to advertise the capability %s: %v", capability, info)
	}
	return launched
}

package plugintest

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/proto"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Connect serves p and launches it as deployer would, but for the process.
func Connect(t testing.TB, p sdk.Plugin, config json.RawMessage, services host.Services) (*host.Plugin, error) {
	t.Helper()
	if services.Allow == nil {
		services.Allow = p.Operations
	}
	both := &pair{GRPCPlugin: sdk.Server(p).(plugin.GRPCPlugin), spec: host.Spec{Name: p.Name, Config: config}, services: services}
	client := quietly(t, func() *plugin.GRPCClient {
		client, _ := plugin.TestPluginGRPCConn(t, true, map[string]plugin.Plugin{proto.Set: both})
		return client
	})
	t.Cleanup(func() { _ = client.Close() }) // stops the server as well
	raw, err := client.Dispense(proto.Set)
	if err != nil {
		return nil, err
	}
	return raw.(*host.Plugin), nil
}

var global sync.Mutex

// quietly keeps go-plugin's helper from leaving its socket in the temporary
// folder and from logging to standard error.
func quietly(t testing.TB, connect func() *plugin.GRPCClient) *plugin.GRPCClient {
	global.Lock()
	defer global.Unlock()
	dir, err := os.MkdirTemp("", "plugintest-") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	before, output := os.Getenv("TMPDIR"), hclog.DefaultOutput
	os.Setenv("TMPDIR", dir)
	hclog.DefaultOutput = io.Discard
	defer func() {
		os.Setenv("TMPDIR", before)
		hclog.DefaultOutput = output
	}()
	return connect()
}

// pair is both ends of one plugin.
type pair struct {
	plugin.NetRPCUnsupportedPlugin
	plugin.GRPCPlugin
	spec     host.Spec
	services host.Services
}

func (p *pair) GRPCClient(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return host.Attach(ctx, broker, conn, p.spec, p.services)
}

// connected is Connect for a plugin that has to start.
func connected(t *testing.T, p sdk.Plugin, config json.RawMessage, services host.Services) *host.Plugin {
	t.Helper()
	launched, err := Connect(t, p, config, services)
	if err != nil {
		t.Fatalf("cannot launch it: %v", err)
	}
	return launched
}

// described is what every plugin has to say of itself.
func described(t *testing.T, p *host.Plugin) {
	t.Helper()
	info := p.Describe()
	if info.Name == "" || info.Version == "" {
		t.Errorf("its name is %q and its version %q: both are needed", info.Name, info.Version)
	}
	if len(info.Schema) > 0 && !json.Valid(info.Schema) {
		t.Errorf("its schema is no JSON: %.80s", info.Schema)
	}
	if err := p.Health(t.Context()); err != nil {
		t.Errorf("it is not healthy: %v", err)
	}
}

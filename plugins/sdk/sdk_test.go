package sdk_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/plugintest"
	"github.com/hbohlen/deployer/plugins/sdk"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "plugin-serve" {
		sdk.Serve(sdk.Plugin{Name: "x", Version: "1"})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type notifier func(ctx context.Context, e sdk.Event) (string, error)

func (n notifier) Notify(ctx context.Context, e sdk.Event) (string, error) { return n(ctx, e) }

func TestCapabilitiesAreThoseThatAreSet(t *testing.T) {
	for _, c := range []struct {
		p    sdk.Plugin
		want string
	}{
		{sdk.Plugin{Name: "none"}, ""},
		{sdk.Plugin{Name: "one", Notifier: notifier(nil)}, "notifier"},
	} {
		p, err := plugintest.Connect(t, c.p, nil, host.Services{})
		if err != nil || strings.Join(p.Info().Capabilities, " ") != c.want {
			t.Errorf("%s: %v", c.p.Name, err)
		}
	}
}

func TestConfigureGetsTheConfigurationAndCore(t *testing.T) {
	var got string
	p := sdk.Plugin{Name: "c", Secrets: []string{"k"}, Configure: func(ctx context.Context, config json.RawMessage, core *sdk.Core) error {
		value, err := core.Secret(ctx, "k")
		got = string(config) + value
		return err
	}}
	_, err := plugintest.Connect(t, p, json.RawMessage(`{"a": 1}`), host.Services{
		Secret: func(context.Context, string) (string, bool, error) { return "v", true, nil },
	})
	if err != nil || got != `{"a": 1}v` {
		t.Errorf("%v, %q", err, got)
	}
}

func TestStartedByHandItSaysWhatItIs(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", "plugin-serve").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "This binary is a plugin") {
		t.Errorf("%v: %s", err, out)
	}
}

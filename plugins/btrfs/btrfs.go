package btrfs

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Name is how the plugin is called in deployer.yaml and by plugin-serve.
const Name = "btrfs"

// Serve runs the plugin.
func Serve() { sdk.Serve(Plugin()) }

// Plugin is the plugin that Serve serves.
func Plugin() sdk.Plugin {
	p := &provider{}
	return sdk.Plugin{
		Name:        Name,
		Version:     "1.0.0",
		Snapshotter: p,
		Operations:  []string{agent.OpDiscover, agent.OpSnapshot, agent.OpSnapshots},
		Schema:      json.RawMessage(`{"type": "object", "additionalProperties": false}`),
		Configure: func(_ context.Context, _ json.RawMessage, core sdk.Core) error {
			p.core = core
			return nil
		},
	}
}

type provider struct{ core sdk.Core }

// Probe asks for every Btrfs of the host.
func (p *provider) Probe(ctx context.Context, req *sdk.ProbeRequest) (*sdk.ProbeResponse, error) {
	found, err := p.discover(ctx, req.GetHostRef(), nil)
	if err != nil {
		return nil, err
	}
	systems := map[string]bool{}
	for _, v := range found {
		if v.Btrfs {
			systems[v.FSID] = true
		}
	}
	if len(systems) == 0 {
		return &sdk.ProbeResponse{Problem: "no Btrfs is mounted on this host"}, nil
	}
	return &sdk.ProbeResponse{Detail: fmt.Sprintf("%d Btrfs, %d subvolumes mounted", len(systems), len(found))}, nil
}

// Plan is what Create would do, without doing it.
func (p *provider) Plan(ctx context.Context, req *sdk.PlanRequest) (*sdk.PlanResponse, error) {
	l, err := p.look(ctx, req.GetHostRef(), req.GetDir(), req.GetSubjects())
	if err != nil {
		return nil, err
	}
	return l.plan(), nil
}

func (p *provider) discover(ctx context.Context, ref string, paths []string) ([]agent.Volume, error) {
	var found agent.Discovery
	err := p.core.Operate(ctx, ref, agent.OpDiscover, agent.DiscoverArgs{Paths: paths}, &found)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the subvolumes: %w", err)
	}
	return found.Volumes, nil
}

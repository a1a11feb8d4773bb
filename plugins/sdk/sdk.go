package sdk

import (
	"context"
	"encoding/json"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// Plugin is what a program serves. Capabilities are advertised for the
// interfaces that are set.
type Plugin struct {
	Name        string
	Version     string
	Notifier    Notifier
	Snapshotter Snapshotter
	Operations  []string        // operations that it may ask Core for
	Secrets     []string        // secrets that it may ask Core for
	Schema      json.RawMessage // JSON schema of its configuration

	// Configure gets the configuration, and Core for later. It may be nil.
	Configure func(ctx context.Context, config json.RawMessage, core Core) error
	// Health says what is wrong now, if anything. It may be nil.
	Health func(ctx context.Context) error
}

// Notifier tells somebody what happened. The same Event may come twice, under
// the same id.
type Notifier interface {
	Notify(ctx context.Context, event *Event) (*Delivery, error)
}

// Snapshotter takes snapshots. Probe and Plan change nothing; Create called
// again with the same operation id and stamp answers with the set that is there.
type Snapshotter interface {
	Probe(ctx context.Context, req *ProbeRequest) (*ProbeResponse, error)
	Plan(ctx context.Context, req *PlanRequest) (*PlanResponse, error)
	Create(ctx context.Context, req *CreateRequest) (*CreateResult, error)
}

// Core is deployer, as a plugin sees it.
type Core interface {
	// Operate runs a typed operation on the host that ref stands for. result is
	// a pointer to what the answer is decoded into, or nil. A failure is an *Error.
	Operate(ctx context.Context, ref, op string, args, result any) error
	// Secret returns a declared secret; *Error with code not-found where the
	// operator configured none.
	Secret(ctx context.Context, name string) (string, error)
}

// Error carries a code and hints back to deployer.
type Error = proto.Error

// The messages of the protocol.
type (
	Event          = pluginv1.Event
	Link           = pluginv1.Link
	Delivery       = pluginv1.Delivery
	Subject        = pluginv1.Subject
	Volume         = pluginv1.Volume
	Snapshot       = pluginv1.Snapshot
	ProbeRequest   = pluginv1.ProbeRequest
	ProbeResponse  = pluginv1.ProbeResponse
	PlanRequest    = pluginv1.PlanRequest
	PlanResponse   = pluginv1.PlanResponse
	CreateRequest  = pluginv1.CreateRequest
	CreateResponse = pluginv1.CreateResponse
	CreateResult   = pluginv1.CreateResult
)

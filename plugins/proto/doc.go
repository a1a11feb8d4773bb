// Package proto is what deployer and its plugins have to agree on: the
// protocol itself (deployer/plugin/v1, generated), the JSON in it, the
// handshake, the names of the capabilities and the form of errors on the wire.
//
// Version 1 of the protocol only grows. A change that breaks it becomes version
// 2 beside it, and both are served for a release.
package proto

//go:generate buf lint
//go:generate buf generate

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Handshake tells a plugin that deployer started it; it is no secret and no
// security.
var Handshake = plugin.HandshakeConfig{MagicCookieKey: "DEPLOYER_PLUGIN", MagicCookieValue: "6c2f3a0e-6f0b-4a43-9d0e-5d7c2f9b1e84"}

const (
	Version = 1
	Set     = "deployer" // the one entry of go-plugin's plugin set
)

// The capabilities that a plugin can advertise. Only what is advertised is
// called: a type assertion does not cross a process.
const (
	Notifier    = "notifier"
	Snapshotter = "snapshotter"
)

// Entry is one side of go-plugin's plugin set, or for tests both.
type Entry struct {
	plugin.NetRPCUnsupportedPlugin
	Serve   func(broker *plugin.GRPCBroker, s *grpc.Server)
	Connect func(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error)
}

func (e *Entry) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error {
	e.Serve(broker, s)
	return nil
}

func (e *Entry) GRPCClient(ctx context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return e.Connect(ctx, broker, conn)
}

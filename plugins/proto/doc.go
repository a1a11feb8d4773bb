// Package proto is what deployer and its plugins have to agree on: the
// protocol itself (deployer/plugin/v1, generated), the handshake, the names of
// the capabilities and the form that errors take on the wire.
//
// Version 1 of the protocol only grows. A change that breaks it becomes version
// 2 beside it, and both are served for a release.
package proto

//go:generate buf lint
//go:generate buf generate

// The handshake. The cookie tells a plugin that deployer started it; it is no
// secret and no security.
const (
	CookieKey   = "DEPLOYER_PLUGIN"
	CookieValue = "6c2f3a0e-6f0b-4a43-9d0e-5d7c2f9b1e84"
	Version     = 1
	Set         = "deployer" // the one entry of go-plugin's plugin set
)

// The capabilities that a plugin can advertise. Only what is advertised is
// called: a type assertion does not cross a process.
const (
	Notifier    = "notifier"
	Snapshotter = "snapshotter"
)

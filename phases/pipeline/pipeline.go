// Package pipeline is the table of the phase kinds: read from top to bottom it
// is what a deployment does.
package pipeline

import (
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/activate"
	"github.com/hbohlen/deployer/phases/backup"
	"github.com/hbohlen/deployer/phases/build"
	"github.com/hbohlen/deployer/phases/gate"
	"github.com/hbohlen/deployer/phases/monitor"
	"github.com/hbohlen/deployer/phases/staging"
	"github.com/hbohlen/deployer/phases/validate"
	"github.com/hbohlen/deployer/phases/window"
)

// Kinds are the phase kinds that this version has built.
var Kinds = []phases.Kind{
	{Name: "gate", Compile: gate.Compile},         // what must be true, and what people sign
	{Name: "backup", Compile: backup.Compile},     // configuration files, with digests
	{Name: "build", Compile: build.Compile},       // parse, evaluate, build once per system
	{Name: "staging", Compile: staging.Compile},   // the same switch, validate and commit on another host
	{Name: "window", Compile: window.Compile},     // wait until changes are allowed
	{Name: "switch", Compile: activate.Compile},   // lock, copy, snapshot, try
	{Name: "validate", Compile: validate.Compile}, // judge over a new connection, then commit
	{Name: "monitor", Compile: monitor.Compile},   // watch for a while
}

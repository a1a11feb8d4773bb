// Package phasetest has what tests of steps and of the engine need: a Machine,
// which is a fake host whose agent answers by operation and whose facts move as
// a real host's would, and a Trace of what happened where, in order. Lanes go
// the product's own way to it: connection, launcher, agent, streams.
package phasetest

// Package nix is the controller's Nix: it evaluates and builds systems, copies
// closures, and compares what a host runs with what it would run.
//
// Nothing here changes a host but Copy. Everything goes through the ordinary
// commands, so the user's own configuration, caches and credentials apply.
// Output is read as JSON; both shapes of `path-info --json` (a list before Nix
// 2.19, an object since) are understood.
package nix

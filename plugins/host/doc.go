// Package host is core's side of plugins: it starts them, asks what they are,
// calls what they advertise, and serves them what core is willing to do.
//
// A plugin is a process on the controller: the running program itself (Self),
// or one that deployer.yaml names with path and sha256. It speaks gRPC over a
// private socket with mutual TLS, on one multiplexed connection. What it wants
// on a host it asks of core, over the broker.
//
//   - Only pinned programs start, and none that others could replace, with
//     PATH, HOME, LANG and a TMPDIR of their own: no token, no SSH agent.
//   - An operation happens only if the plugin declared it, core gives it out,
//     and a call is under way on that host. Whether it writes is core's
//     knowledge; writes are refused outside of Create. A dry run only plans.
//   - A secret is given only by a name that the plugin declared.
//   - Everything that is asked is audited, refused or not.
//   - A crash starts the plugin again once per call, and the call is made again
//     under the same ids. What core was doing for the first try has ended by then.
//   - A plugin that hangs is ended; the next call starts it again.
//   - Close drains, then ends the process. A plugin is gone within two seconds
//     after deployer was killed.
//
// A plugin is not a sandbox: it runs as the user who runs deployer.
package host

// Package host is core's side of plugins: it starts them, asks what they are,
// calls what they advertise, and serves them what core is willing to do.
//
// A plugin is a process on the controller. Shipped ones are the running program
// itself (Self); others are named in deployer.yaml with path and sha256. Both
// speak gRPC over a private socket with mutual TLS, one multiplexed connection
// per process. What a plugin wants on a host it asks of core, over the broker:
// typed operations of the agent, under a handle that is good only during the
// call it came with.
//
// What core holds to:
//
//   - Only pinned programs start, and none that others could replace. A wrong
//     digest names both and the line to put into deployer.yaml.
//   - A plugin gets PATH, HOME, LANG and a TMPDIR of its own, nothing else of
//     our environment: no token, no SSH agent.
//   - Only advertised capabilities are exposed.
//   - An operation happens only if the plugin declared it and core gives it
//     out. Whether it writes is core's knowledge; writes are refused outside
//     Create and in a dry run.
//   - A secret is given only by a name that the plugin declared.
//   - Everything that is asked is audited, refused or not.
//   - A crash starts the plugin again once per call, and the call is made again
//     under the same ids. What core was doing for the first try has ended by then.
//   - A plugin that hangs is ended; the next call starts it again. Create is
//     called off for silence, not for length.
//   - Close drains, then ends the process. A plugin is gone within two seconds
//     after deployer was killed.
//
// A plugin is not a sandbox: it runs as the user who runs deployer.
package host

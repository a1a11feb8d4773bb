// Package plugintest is the conformance suite for plugins, and what tests of
// them stand on. It serves a plugin in the test's own process and calls it as
// deployer does: over gRPC, multiplexed, with core on the other end of the
// broker. A plugin's own test is a few lines:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Notifier(t, newPlugin, json.RawMessage(`{"path": "/tmp/x"}`), host.Services{})
//	}
//
// Host stands in for the agent of a machine with Btrfs: it answers
// btrfs.discover, btrfs.snapshot and btrfs.list, keeps what was taken, and
// fails on everything else.
package plugintest

// Package sdk is what the author of a plugin imports. A plugin is a program
// whose main calls Serve:
//
//	func main() {
//		sdk.Serve(sdk.Plugin{Name: "pager", Version: "1.0.0", Notifier: pager{}})
//	}
//
// deployer starts it on the controller, asks what it is (Describe), hands it
// its configuration (Configure) and calls what it advertises, over gRPC with
// mutual TLS. A plugin holds no connection to a host and no key: what it wants
// done there it asks of Core, as one of the agent's typed operations, under the
// handle that came with the call. Core decides whether that happens.
//
// What Serve takes care of:
//
//   - A plugin does not outlive deployer: it is gone within two seconds after
//     deployer was killed.
//   - A panic in a method becomes the error of that call.
//   - A closed standard error does not kill the plugin in the middle of its
//     work (SIGPIPE is ignored).
//   - Sockets lie in a private folder, removed in the end.
//   - hclog.Default() logs to deployer, with its fields; what is printed on
//     standard output is dropped.
//
// What is left to the author: a call may come a second time after a crash, so
// methods that change something must recognise their operation id or event id.
package sdk

// Package sdk is what the author of a plugin imports. A plugin is a program
// whose main calls Serve:
//
//	func main() {
//		sdk.Serve(sdk.Plugin{Name: "pager", Version: "1.0.0", Notifier: pager{}})
//	}
//
// deployer starts it on the controller, asks what it is, hands it its
// configuration and calls what it advertises, over gRPC with mutual TLS. A
// plugin holds no connection to a host and no key: what it wants done there it
// asks of Core, as one of the agent's typed operations, under the handle that
// came with the call. Core decides whether that happens.
//
// Serve takes care that a plugin is gone within two seconds after deployer was
// killed, that a panic in a method is the error of that call, and that a closed
// standard error kills nothing. hclog.Default() logs to deployer; what is
// printed on standard output is dropped.
//
// What is left to the author: a call may come a second time after a crash, so
// methods that change something must recognise their operation id or event id.
package sdk

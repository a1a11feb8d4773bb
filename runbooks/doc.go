// Package runbooks reads deployer.yaml and runbooks.
//
// A file becomes values in four steps. It is parsed into a tree whose every
// node knows its line and column (parse.go, the only file that knows a YAML
// library). Variables are filled in on the tree (vars.go), so that a value can
// change no structure. The tree is read into the types of types.go (decode.go),
// whose tags say what is needed, which words are allowed, what the default is,
// what a text looks like and what is not built yet (rules.go, forms.go); little
// is left for code of a type's own (check.go, phase.go). At last names are
// looked up in the project, and the phases' order is judged (resolve.go,
// order.go). No step stops at a mistake; each adds to one list.
//
// What holds afterwards: every check ends, and the checks of a validate phase,
// one after the other, fit into `confirm_within` of the switch; a condition
// compiles, and missing data and NaN never make it hold; a window is wall-clock
// time, with a stated policy for the days on which clocks jump. What this
// version knows but has not built is refused by name when a runbook is run,
// never ignored. No line that may hold a secret is shown.
//
// `${name}` is a variable of the runbook; `${host}`, `${host.name}`,
// `${host.address}` and `${host.system}` stay until Check.For fills in those of
// a host; `$${NAME}` is `${NAME}` for a shell.
package runbooks

// Package runbooks reads deployer.yaml and runbooks.
//
// A file becomes values in five steps. It is parsed into a tree whose every
// node knows its line and column (parse.go, the only file that knows a YAML
// library). Variables are filled in on the tree (vars.go). The tree is read
// into the types of types.go, whose tags say what is needed, which words are
// allowed and what a text must look like (fields.go, decode.go, forms.go).
// Each type then fills in its defaults and refuses keys that contradict each
// other (project.go, phase.go, check.go, condition.go). At last names are
// looked up in the project, and the phases' order is judged (resolve.go,
// order.go). No step stops at a mistake; each adds to one list.
//
// What holds afterwards:
//
//   - All mistakes of both files are reported at once, with file, line and
//     column (TestAllMistakesOfBothFilesAreReportedAtOnce), in the words of the
//     runbook (TestMistakesSpeakTheRunbooksWords), sorted
//     (TestMistakesStandInTheOrderOfTheFile).
//   - No line that may hold a secret is shown, and a literal secret is refused
//     (TestNoSecretIsShown, TestMistakesOfAProject).
//   - The value of a variable is text: it can change no structure
//     (TestVariablesAreFilledInBeforeTheTextMeansAnything).
//   - Every check ends: it has a deadline, and each try has one
//     (TestEveryCheckEnds). The checks of a validate phase, one after the
//     other, fit into `confirm_within` of the switch (TestMistakesOfPhases).
//   - A condition is compiled when it is read (TestMistakesOfACheck); missing
//     data and NaN never make it hold (TestNoDataNeverHolds).
//   - A window is wall-clock time, with a stated policy for the days on which
//     clocks jump (TestWindowsAreWallClockTimes, TestTheNextOpeningIsTheFirst).
//   - What this version knows but has not built is refused by name when a
//     runbook is run, never ignored (TestUnbuiltIsRefusedByName).
//   - No input makes the loader panic (FuzzLoad, FuzzParseWindow).
//   - schema.json is made from the types (TestTheSchemaAgreesWithTheTypes).
//
// `${name}` is a variable of the runbook; `${host}`, `${host.name}`,
// `${host.address}` and `${host.system}` stay until Check.For fills in those of
// a host; `$${NAME}` is `${NAME}` for a shell.
package runbooks

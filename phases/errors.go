package phases

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/state"
)

// The exit codes: a published contract (README.md, "Exit codes").
const (
	ExitOK           = 0
	ExitFailed       = 1   // before any change
	ExitChanges      = 3   // plan --detailed-exitcode
	ExitWaiting      = 4   // saved, waiting
	ExitRefused      = 5   // stale plan, drifted host
	ExitFenced       = 6   // another controller has taken over
	ExitUsage        = 10  // usage, configuration, runbook
	ExitPrecondition = 15  // unreachable, or a precondition failed
	ExitRolledBack   = 20  // rolled back by deployer, verified
	ExitByHost       = 21  // rolled back by the host's own guard
	ExitAborted      = 22  // aborted by the operator, restored
	ExitMixed        = 25  // some committed, others restored
	ExitUnhealthy    = 26  // committed, a rule is breached, not rolled back
	ExitStuck        = 30  // a person is needed
	ExitUnknown      = 31  // out of reach
	ExitInterrupted  = 130 // left, or an engine error
)

// Failure is the one error that reaches a user: what, where, what is safe, and
// what to type next. It is printed in one place, the view.
type Failure struct {
	Exit   int
	Host   string
	Phase  string
	Step   string
	Err    error
	Safe   string   // what is safe: "nothing was changed"
	Hint   []string // what to type next
	Output []string // last lines of what failed
}

func (f *Failure) Error() string {
	where := f.Step
	if f.Phase != "" {
		where = f.Phase + "/" + f.Step
	}
	if f.Host != "" {
		where = strings.TrimSpace(where + " on " + f.Host)
	}
	if where == "" {
		return f.Err.Error()
	}
	return fmt.Sprintf("%s: %s", where, f.Err)
}

func (f *Failure) Unwrap() error { return f.Err }

// Fail makes a Failure; steps use it to add hints and output to a cause.
func Fail(err error, hint ...string) *Failure {
	return &Failure{Exit: ExitFailed, Err: err, Hint: hint}
}

// Precondition is a Failure with exit code 15: something outside must be mended first.
func Precondition(err error, hint ...string) *Failure {
	return &Failure{Exit: ExitPrecondition, Err: err, Hint: hint}
}

// AsFailure finds the Failure in err, or wraps err as one.
func AsFailure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Exit: ExitFailed, Err: err}
}

// At is what kept a command outside of a run from something on a host; the error
// may name another one, such as the backup host.
func At(name string, err error) error {
	if err == nil {
		return nil
	}
	f := *AsFailure(err)
	if f.Exit == ExitFailed {
		f.Exit = ExitPrecondition
	}
	var ae *agent.Error
	if errors.As(err, &ae) && len(f.Hint) == 0 {
		f.Hint = ae.Hint
	}
	var he *host.Error
	if errors.As(err, &he) && len(f.Hint) == 0 {
		f.Hint = he.Hint
	}
	f.Host = cmp.Or(f.Host, name)
	return &f
}

// fenced tells whether err says that another controller has taken over, on a
// host or in the store.
func fenced(err error) bool {
	var ae *agent.Error
	var lost *state.Fenced
	return errors.As(err, &ae) && ae.Code == "fenced" || errors.As(err, &lost)
}

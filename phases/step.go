package phases

import (
	"context"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// Step is the unit that the runner does and undoes, on one host or on the
// controller.
type Step interface {
	// Name is the step's name within its phase and host: "snapshot".
	Name() string
	// Do has the step's effect. It may return Skip, Retry or Wait: results, not failures.
	Do(ctx context.Context, env *Env) error
}

// The optional capabilities of a step, one method each, found by type assertion.
type (
	// Planner says what the step would change. It only reads.
	Planner interface {
		Plan(ctx context.Context, env *Env) (Change, error)
	}
	// Undoer gives the step's undo before Do runs: typed operations with exact
	// ids and paths. They are durable, here and on the host, before the effect.
	Undoer interface {
		Undo(ctx context.Context, env *Env) ([]agent.Operation, error)
	}
	// Skipper gives the reason for which the step is not needed, or "".
	Skipper interface {
		Skip(ctx context.Context, env *Env) (string, error)
	}
	// Requirer finds what the step would trip over, from what was seen of its
	// host, before anything is changed anywhere.
	Requirer interface {
		Requires(ctx context.Context, env *Env) []Finding
	}
	// Hoster names the lane of a step; steps without it run on the controller.
	Hoster interface{ Host() string }
	// Classer says what a step in doubt means; steps without it only read.
	Classer interface{ Class() Class }
)

// Class decides what becomes of a step whose intent has no outcome.
type Class string

// The step classes (engines.md 3.5 of the design's evidence).
const (
	Read       Class = "read"       // run again
	Idempotent Class = "idempotent" // run again under the same operation id
	Probe      Class = "probe"      // ask the host
	Reboot     Class = "reboot"     // compare the boot id
	Once       Class = "once"       // never again by itself
	Notify     Class = "notify"     // again, with the same delivery key
)

// On is embedded by steps: the lane they belong to and their class.
type On struct {
	Lane string
	Kind Class
}

// Host implements Hoster.
func (o On) Host() string { return o.Lane }

// Class implements Classer.
func (o On) Class() Class {
	if o.Kind == "" {
		return Read
	}
	return o.Kind
}

// Change is what a step would do, in words.
type Change struct {
	Text    string   // one line
	Detail  []string // more lines
	Nothing bool     // there is nothing to do
	Unknown bool     // not known until it runs
}

// Finding is something that would make the run fail, found before it starts.
type Finding struct {
	Host string   `json:"host"`
	What string   `json:"what"`
	Hint []string `json:"hint,omitempty"` // what mends it, to be pasted
}

func (f Finding) String() string {
	if f.Host == "" {
		return f.What
	}
	return f.Host + ": " + f.What
}

// Skip is returned by a step that found nothing to do, with the reason.
type Skip string

func (s Skip) Error() string { return "skipped: " + string(s) }

// Retry is returned by a step that wants to be run again.
type Retry struct {
	After  time.Duration
	Reason string
}

func (r Retry) Error() string { return fmt.Sprintf("again in %s: %s", r.After, r.Reason) }

// Wait is returned by a step that something outside must happen for: a window,
// a person. The runner waits and runs it again.
type Wait struct {
	Reason string
	Until  time.Time // when to look again; zero: after a minute
}

func (w Wait) Error() string { return "waiting: " + w.Reason }

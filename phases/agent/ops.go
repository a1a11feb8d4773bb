package agent

import (
	"context"
	"encoding/json"
)

// Operations differ in what their connection means to them.
const (
	reads  = iota // changes nothing, and ends with its connection
	writes        // may change the host, and goes on without its connection
	child         // may change the host, and ends with its connection: a child of the agent
)

type operation struct {
	kind int
	run  func(ctx context.Context, a *agent, args json.RawMessage) (any, error)
}

// operations is the whole of what an agent can be asked for.
var operations map[string]operation

func init() { // not at once: it would refer to itself
	operations = map[string]operation{
		OpHello:     is(reads, (*agent).hello),
		OpFacts:     is(reads, (*agent).facts),
		OpLock:      is(writes, (*agent).lock),
		OpExec:      is(child, (*agent).exec),
		OpProbe:     is(child, (*agent).probe),
		OpJobStart:  is(writes, (*agent).jobStart),
		OpJobWait:   is(reads, (*agent).jobWait),
		OpJobOutput: is(reads, (*agent).jobOutput),
		OpPin:       is(writes, (*agent).pin),
		OpApply:     is(writes, (*agent).applyNow),
		OpRecipePut: is(writes, (*agent).recipePut),
		OpRecipeGet: is(reads, (*agent).recipeGet),
		OpRestore:   is(writes, (*agent).restoreStart),
		OpClose:     is(writes, (*agent).close),
		OpFileGet:   is(reads, (*agent).fileGet),
		OpDiscover:  is(reads, (*agent).discover),
		OpSnapshot:  is(writes, (*agent).snapshot),
		OpSnapshots: is(reads, (*agent).snapshots),
	}
}

// Writes tells whether an operation may change the host. An operation that is
// not known may.
func Writes(op string) bool {
	o, ok := operations[op]
	return !ok && op != OpCancel || o.kind != reads
}

type none struct{}

func is[A, R any](kind int, f func(*agent, context.Context, A) (R, error)) operation {
	return operation{kind, func(ctx context.Context, a *agent, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &args); err != nil {
				return nil, invalid("cannot read the arguments: %v", err)
			}
		}
		return f(a, ctx, args)
	}}
}

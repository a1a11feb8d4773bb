package agent

import (
	"context"
	"encoding/json"
)

// Operations differ in what their connection means to them.
const (
	reads   = iota // changes nothing, and ends with its connection
	child          // may change the host, and ends with its connection: a child of the agent
	writes         // goes forward: not without the epoch, nor while the host goes back; goes on without its connection
	settles        // belongs to the way back, or to the record: not without the epoch
	decides        // settles, with the gate to itself
	locks          // is about the epoch itself
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
		OpLock:      is(locks, (*agent).lock),
		OpUnlock:    is(locks, (*agent).unlock),
		OpLane:      is(reads, (*agent).lane),
		OpLanes:     is(reads, (*agent).lanes),
		OpRecords:   is(reads, (*agent).records),
		OpJournal:   is(settles, (*agent).journal),
		OpArm:       is(writes, (*agent).arm),
		OpExtend:    is(writes, (*agent).extend),
		OpAnnounce:  is(settles, (*agent).announce),
		OpConfirm:   is(decides, (*agent).confirm),
		OpExec:      is(child, (*agent).exec),
		OpProbe:     is(child, (*agent).probe),
		OpJobStart:  is(writes, (*agent).jobStart),
		OpJobWait:   is(reads, (*agent).jobWait),
		OpJobOutput: is(reads, (*agent).jobOutput),
		OpPin:       is(writes, (*agent).pin),
		OpApply:     is(writes, (*agent).applyNow),
		OpRecipePut: is(writes, (*agent).recipePut),
		OpRecipeGet: is(reads, (*agent).recipeGet),
		OpRestore:   is(decides, (*agent).restoreStart),
		OpClose:     is(settles, (*agent).close),
		OpFileGet:   is(reads, (*agent).fileGet),
		OpDiscover:  is(reads, (*agent).discover),
		OpSnapshot:  is(writes, (*agent).snapshot),
		OpSnapshots: is(reads, (*agent).snapshots),
		OpPreview:   is(child, (*agent).preview),
		OpFiles:     is(writes, (*agent).files),
		OpFilesDry:  is(reads, (*agent).filesDry),
		OpBackup:    is(child, (*agent).backup),
		OpCopied:    is(child, (*agent).copied),
		OpCopies:    is(reads, (*agent).copies),
		OpDelete:    is(settles, (*agent).deleteSnapshots),
		OpDeleteDry: is(reads, (*agent).deleteDry),
	}
}

// Fenced tells whether an operation is refused without the host's epoch.
func Fenced(op string) bool {
	k := operations[op].kind
	return k == writes || k == settles || k == decides
}

// Repeatable tells whether an operation that was asked for twice, one after the
// other, is as good as once: it reads, or finds that what it is to do is done. The
// short commands are lookers, or builds.
func Repeatable(op string) bool {
	switch op {
	case OpJournal, OpArm, OpExec, OpProbe, OpPin, OpJobStart, OpRecipePut, OpRestore, OpSnapshot:
		return true
	}
	o, ok := operations[op]
	return ok && o.kind == reads
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

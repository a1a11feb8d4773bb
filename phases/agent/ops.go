package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// operation is one entry of the table of what an agent does.
type operation struct {
	writes bool // it may change the host
	ends   bool // a write that ends with its connection: a child of the agent
	run    func(ctx context.Context, a *agent, args json.RawMessage) (any, error)
}

// operations is the whole of what an agent can be asked for.
var operations map[string]operation

func init() {
	operations = map[string]operation{
		OpHello:     read(func(a *agent, _ context.Context, _ none) (Hello, error) { return a.hello() }),
		OpFacts:     read((*agent).facts),
		OpLock:      write((*agent).lock),
		OpUnlock:    write((*agent).unlock),
		OpExec:      child((*agent).exec),
		OpProbe:     child((*agent).probe),
		OpJobStart:  write((*agent).jobStart),
		OpJobWait:   read((*agent).jobWait),
		OpJobOutput: read((*agent).jobOutput),
		OpJobStop:   write((*agent).jobStop),
		OpPin:       write((*agent).pin),
		OpUnpin:     write((*agent).unpin),
		OpApply:     write((*agent).applyNow),
		OpRecipePut: write((*agent).recipePut),
		OpRecipeGet: read((*agent).recipeGet),
		OpRestore:   write((*agent).restoreStart),
		OpClose:     write((*agent).close),
		OpFileGet:   read((*agent).fileGet),
		OpDiscover:  read((*agent).discover),
		OpSnapshot:  write((*agent).snapshot),
		OpSnapshots: read((*agent).snapshots),
	}
}

// Writes tells whether an operation may change the host. An operation that is
// not known may.
func Writes(op string) bool {
	o, ok := operations[op]
	return !ok && op != OpCancel || o.writes
}

// ProbeWrites tells whether one probe may change the host: a command may do
// anything, and a unit that is started is.
func ProbeWrites(p Probe) bool { return p.Kind == "command" || p.Start }

type none struct{}

func read[A, R any](f func(*agent, context.Context, A) (R, error)) operation {
	return operation{run: decoded(f)}
}

func write[A, R any](f func(*agent, context.Context, A) (R, error)) operation {
	return operation{run: decoded(f), writes: true}
}

func child[A, R any](f func(*agent, context.Context, A) (R, error)) operation {
	return operation{run: decoded(f), writes: true, ends: true}
}

func decoded[A, R any](f func(*agent, context.Context, A) (R, error)) func(context.Context, *agent, json.RawMessage) (any, error) {
	return func(ctx context.Context, a *agent, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &args); err != nil {
				return nil, &Error{Code: "invalid", Message: fmt.Sprintf("cannot read the arguments: %v", err)}
			}
		}
		return f(a, ctx, args)
	}
}

// Ask is Call with a result of its own type: Ask[Facts](ctx, c, OpFacts, args).
func Ask[R any](ctx context.Context, c *Client, op string, args any) (R, error) {
	var result R
	err := c.Call(ctx, op, args, &result)
	return result, err
}

// Hello is the first call on a new connection.
func (c *Client) Hello(ctx context.Context) (Hello, error) { return Ask[Hello](ctx, c, OpHello, nil) }

// Facts asks what the host is now.
func (c *Client) Facts(ctx context.Context, args FactsArgs) (Facts, error) {
	return Ask[Facts](ctx, c, OpFacts, args)
}

// Exec runs a short command as root.
func (c *Client) Exec(ctx context.Context, args ExecArgs) (ExecResult, error) {
	return Ask[ExecResult](ctx, c, OpExec, args)
}

// Start begins a job and answers when its start is recorded on the host.
func (c *Client) Start(ctx context.Context, job Job) (Receipt, error) {
	return Ask[Receipt](ctx, c, OpJobStart, job)
}

// Wait answers when a job has ended, or after wait.
func (c *Client) Wait(ctx context.Context, unit string, wait time.Duration) (Receipt, error) {
	return Ask[Receipt](ctx, c, OpJobWait, JobRef{Unit: unit, Wait: wait})
}

// Apply does one typed operation now.
func (c *Client) Apply(ctx context.Context, op Operation) (Outcome, error) {
	return Ask[Outcome](ctx, c, OpApply, op)
}

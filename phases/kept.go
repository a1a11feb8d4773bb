package phases

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// unsent are the records that a lane's host has not been given yet. They go
// along with the next write, and are durable there before it.
type unsent struct {
	mu    sync.Mutex
	lines []json.RawMessage
}

func (u *unsent) add(lines ...json.RawMessage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lines = append(u.lines, lines...)
}

func (u *unsent) take() []json.RawMessage {
	u.mu.Lock()
	defer u.mu.Unlock()
	lines := u.lines
	u.lines = nil
	return lines
}

// back returns lines whose fate is not known: told twice is told once.
func (u *unsent) back(lines []json.RawMessage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lines = append(lines, u.lines...)
}

// send makes one request, with what the host has not been told yet if that is a write.
func (l *Lane) send(ctx context.Context, c *agent.Client, op string, args, result any) error {
	req := agent.Request{Op: op, Epoch: l.holder.Epoch}
	if l.Locked && l.journal != "" && agent.Fenced(op) {
		if lines := l.unsent.take(); len(lines) > 0 {
			req.Records = &agent.Records{Run: l.journal, Lines: lines}
		}
	}
	err := c.Send(ctx, req, args, result)
	var refused *agent.Error
	if req.Records != nil && err != nil && !errors.As(err, &refused) {
		l.unsent.back(req.Records.Lines)
	}
	return err
}

// hosts is the sink that lets every host keep its part of the record: what is
// about it, and what is about the run as a whole.
type hosts struct{ run *Run }

// Event implements Sink.
func (h hosts) Event(rec state.Record) {
	if rec.Seq == 0 || rec.Kind == state.Rebuilt {
		return
	}
	rec.Prev = ""
	line, err := json.Marshal(rec)
	if err != nil {
		return
	}
	for _, l := range h.run.Lanes {
		if rec.Host == "" || rec.Host == l.Name {
			l.unsent.add(line)
		}
	}
}

// Begin makes what a run is its first record. Hosts keep all that follows.
func (r *Runner) Begin(ctx context.Context, created state.Created) error {
	r.tell(ctx)
	return r.Log.Record(state.Record{Kind: state.RunCreated}, created)
}

// tell makes the log's records go to the hosts from here on, and those of
// earlier processes that they do not have.
func (r *Runner) tell(ctx context.Context) {
	r.Run.log = r.Log
	if r.telling {
		return
	}
	r.telling = true
	for _, l := range r.Run.Lanes {
		l.journal = r.Run.ID
		if len(r.Told) > 0 {
			r.catchUp(ctx, l)
		}
	}
	r.Log.Sinks = append(r.Log.Sinks, hosts{r.Run})
}

func (r *Runner) catchUp(ctx context.Context, l *Lane) {
	has := map[uint64]bool{}
	lines, _ := l.records(ctx, r.Run.ID)
	for _, line := range lines {
		var rec state.Record
		_ = json.Unmarshal(line, &rec)
		has[rec.Seq] = true
	}
	one := hosts{&Run{Lanes: []*Lane{l}}}
	for _, rec := range r.Told {
		if !has[rec.Seq] {
			one.Event(rec)
		}
	}
}

// flush gives the hosts the last records.
func (r *Runner) flush(ctx context.Context) {
	for _, l := range slices.Backward(r.Run.Lanes) {
		if l.Locked && l.started() != nil && !l.gone() {
			_ = l.Call(ctx, agent.OpJournal, nil, nil)
		}
	}
}

package phasetest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
)

// Label is how a Trace names an operation of a recipe: by what is its own.
func Label(op agent.Operation) string {
	for _, s := range []string{op.Name, op.Path, op.Unit} {
		if s != "" {
			return strings.TrimPrefix(s, "/")
		}
	}
	return op.Op
}

// Default does what the Machine does by itself, for Handlers that only watch.
func (m *Machine) Default(op string, args json.RawMessage) (result any, err error) {
	m.With(func(w *World) {
		do, ok := map[string]func(*World, json.RawMessage) any{
			agent.OpFacts:     func(w *World, a json.RawMessage) any { return w.look(decode[agent.FactsArgs](a)) },
			agent.OpLock:      func(*World, json.RawMessage) any { m.Trace.Add("lock"); return agent.Holder{Epoch: 1} },
			agent.OpLane:      func(w *World, _ json.RawMessage) any { return agent.Lane{Recipe: len(w.Recipe.Operations) > 0} },
			agent.OpUnlock:    func(*World, json.RawMessage) any { m.Trace.Add("unlock"); return agent.Holder{} },
			agent.OpJournal:   func(*World, json.RawMessage) any { return nil },
			agent.OpRecords:   func(*World, json.RawMessage) any { return agent.RecordsPart{} },
			agent.OpArm:       func(*World, json.RawMessage) any { m.Trace.Add("guard"); return agent.Guard{Left: 180} },
			agent.OpExtend:    func(*World, json.RawMessage) any { return agent.Guard{Left: 180} },
			agent.OpConfirm:   func(*World, json.RawMessage) any { m.Trace.Add("confirm"); return agent.Decision{} },
			agent.OpPin:       func(_ *World, a json.RawMessage) any { m.Trace.Add("pin-" + decode[agent.Pin](a).Name); return a },
			agent.OpExec:      func(*World, json.RawMessage) any { return agent.ExecResult{} },
			agent.OpProbe:     func(*World, json.RawMessage) any { return agent.Sample{OK: true, Detail: "fine"} },
			agent.OpFileGet:   func(w *World, a json.RawMessage) any { return w.file(decode[agent.FileRef](a).Path) },
			agent.OpDiscover:  func(*World, json.RawMessage) any { return agent.Discovery{} },
			agent.OpJobStart:  func(w *World, a json.RawMessage) any { return m.job(w, decode[agent.Job](a)) },
			agent.OpJobWait:   func(w *World, a json.RawMessage) any { return w.receipts[decode[agent.JobRef](a).Unit] },
			agent.OpJobOutput: func(*World, json.RawMessage) any { return agent.Output{} },
			agent.OpRecipePut: func(w *World, a json.RawMessage) any { w.Recipe = decode[agent.Recipe](a); return a },
			agent.OpRecipeGet: func(w *World, _ json.RawMessage) any { return w.Recipe },
			agent.OpRestore:   func(w *World, _ json.RawMessage) any { return m.restore(w) },
			agent.OpClose:     func(w *World, a json.RawMessage) any { w.Closed = decode[agent.Closing](a).Outcome; return a },
			agent.OpApply: func(w *World, a json.RawMessage) any {
				m.Trace.Add(decode[agent.Operation](a).Op)
				return w.apply(decode[agent.Operation](a))
			},
		}[op]
		if err = (&agent.Error{Code: "invalid", Message: "unknown operation " + op}); ok {
			result, err = do(w, args), nil
		}
	})
	return result, err
}

func decode[T any](args json.RawMessage) (v T) {
	_ = json.Unmarshal(args, &v)
	return v
}

func (w *World) file(path string) agent.File {
	f := w.Files[path]
	f.Path = path
	return f
}

func (w *World) look(args agent.FactsArgs) agent.Facts {
	f := w.Facts
	f.Files = map[string]string{}
	for _, p := range args.Files {
		f.Files[p] = w.Files[p].Digest
	}
	return f
}

// job is a switch-to-configuration that goes well.
func (m *Machine) job(w *World, job agent.Job) agent.Receipt {
	system, verb := strings.TrimSuffix(job.Args[0], "/bin/switch-to-configuration"), job.Args[1]
	m.Trace.Add(verb)
	switch verb {
	case "test":
		w.Facts.System = system
	case "boot":
		entry := fmt.Sprintf("nixos-generation-%d.conf", w.Facts.Profile.Generation)
		w.Facts.Boot = agent.Boot{Loader: w.Facts.Boot.Loader, System: system, Default: entry}
	}
	r := agent.Receipt{Unit: job.Unit, Run: job.Run, State: "ended", BootID: w.Facts.BootID}
	w.receipts[job.Unit] = r
	return r
}

// restore does every operation of the recipe, also after one that failed: that
// leaves a failed unit, so that the host is not what it was.
func (m *Machine) restore(w *World) agent.Receipt {
	r := agent.Receipt{Unit: "deployer-restore-1.service", Run: w.Recipe.Run, State: "ended"}
	for _, op := range w.Recipe.Operations {
		out, mark := w.apply(op), ""
		if w.Broken[Label(op)] {
			out = agent.Outcome{Op: op, State: "failed", Code: 1, Message: "broken", Hint: []string{"mend " + Label(op)}}
			w.Facts.Failed, r.Code, mark = append(w.Facts.Failed, Label(op)+".service"), 1, "!"
		}
		m.Trace.Add("~" + Label(op) + mark)
		r.Result = append(r.Result, out)
	}
	w.receipts[r.Unit] = r
	return r
}

func (w *World) apply(op agent.Operation) agent.Outcome {
	switch p := &w.Facts.Profile; op.Op {
	case agent.DoActivate:
		w.Facts.System = op.System
	case agent.DoBoot:
		w.Facts.Boot = *op.Boot
	case agent.DoProfile:
		p.System, p.Generation = op.System, max(op.Generation, p.Generation+1)
		if op.Generation > 0 {
			p.Generation = op.Generation
		}
	case agent.DoWriteFile:
		w.Files[op.Path] = agent.File{Digest: op.Digest, Mode: op.Mode, Content: op.Content}
	}
	return agent.Outcome{Op: op, State: "done"}
}

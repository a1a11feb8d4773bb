package phases

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// keepLogs fetches what the failed system said before it goes: the journal
// since the run began, and the status of the units that failed. It is a help
// for a person; when it cannot be had, the restore does not wait for it.
func (r *Runner) keepLogs(ctx context.Context, l *Lane) {
	if r.Run.Dir == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out agent.ExecResult
	since := fmt.Sprintf("@%d", l.Before.Time.Unix())
	err := l.Call(ctx, agent.OpExec, agent.ExecArgs{
		Args:    []string{"journalctl", "--no-pager", "-o", "short-iso", "--since", since, "-n", "3000"},
		Timeout: 8 * time.Second,
	}, &out)
	if err != nil || len(out.Stdout) == 0 {
		return
	}
	name := "output/" + l.Name + "-journal.log"
	if err := state.WriteFile(filepath.Join(r.Run.Dir.Path, name), out.Stdout); err != nil {
		return
	}
	lines := strings.Count(string(out.Stdout), "\n")
	_ = r.Log.Record(state.Record{Kind: state.Note, Host: l.Name, Text: fmt.Sprintf("kept the host's journal since the run began: %d lines in %s", lines, name)}, nil)
}

// Keep writes what a step has to show to the run's folder, and gives its name
// there. Remote output never goes into the journal.
func (e *Env) Keep(name string, content []byte) string {
	if e.Dir == nil {
		return ""
	}
	name = "output/" + strings.NewReplacer("/", "-", "@", "-", " ", "-").Replace(e.Step) + "-" + name
	if err := state.WriteFile(filepath.Join(e.Dir.Path, name), content); err != nil {
		return ""
	}
	return name
}

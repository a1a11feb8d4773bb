package main_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

// A gate that looked at a host before the switch left a connection behind, and
// the host was "contacted" over that one afterwards: it was committed with sshd
// gone. Judgement needs a connection made after the activation.
func TestLabAGateLeavesNoConnectionToJudgeOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems(`{}`, `{"services":{"openssh":{"enable":false}}}`)
	s.book(strings.Replace(runbook("app", ""), "phases:\n", "phases:\n  - gate: ready\n    items: [{check: {unit: multi-user.target, within: 10s}}]\n", 1))
	before := s.looks()
	run := s.run(20)
	run.restored("production", "staging")
	before()
}

// A run that was killed on its first host had no recipe on its second, so that
// `rollback RUN` was refused, and so was every later run.
func TestLabKilledOnItsFirstHostIsRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems(`{"lab":{"activation":{"sleep":3}}}`, `{}`)
	before := s.looks()
	cmd, wait := s.start("run", "lab", "--yes")
	if !eventually(time.Minute, func() bool { return strings.Contains(s.written(), `"changing"`) }) {
		t.Fatal("it never came to change staging")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
	run := s.latest()
	s.says(s.want(0, "status"), run.id, string(state.Interrupted))
	time.Sleep(4 * time.Second) // the activation outlives its controller
	s.want(0, "rollback", run.id, "--yes")
	before()
	s.says(s.want(5, "rollback", run.id, "--yes"), "undone already")
	s.run(0) // nothing stands in the way of the next
}

// A rollback that was killed half way could not be finished: its first host did
// not run any more what the run had left there.
func TestLabAKilledRollbackIsFinished(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.looks()
	first := s.run(0)
	cmd, wait := s.start("rollback", "--yes")
	if !eventually(time.Minute, func() bool { return strings.Contains(s.written(), `"to":"restored"`) }) {
		t.Fatal("no host went back")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
	s.want(0, "rollback", first.id, "--yes")
	before()
}

func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

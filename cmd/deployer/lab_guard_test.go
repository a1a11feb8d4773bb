package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

// window is the guard's time in these tests; a lost link is noticed after ten
// seconds, and contact may take twenty.
const window = "confirm_within: 25s"

// newWindow is a site whose production hangs on its guard while `lab` runs: the
// new system meddles with the declared files and is activated for four seconds.
func newWindow(t *testing.T, options ...string) *site {
	t.Parallel()
	s := newSite(t)
	s.production.Enter(t, writeDeclared)
	s.systems("{}", deep(t, append([]string{meddle, `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"sleep":4}}}`}, options...)...))
	s.book(strings.Replace(runbook("app", ""), "confirm_within: 5m", window, 1))
	return s
}

// reached tells whether the journal has a record of a step.
func (s *site) reached(kind state.Kind, step string) bool {
	for line := range strings.Lines(s.written()) {
		if strings.Contains(line, `"`+string(kind)+`"`) && strings.Contains(line, `"`+step+`"`) {
			return true
		}
	}
	return false
}

func (s *site) armed() bool    { return s.reached(state.StepDone, "switch/guard@production") }
func (s *site) tried() bool    { return s.reached(state.StepDone, "switch/test@production") }
func (s *site) contacts() bool { return s.reached(state.StepDone, "validate/contact@production") }

// activating asks the host: the journal has the intent before there is a unit.
func (s *site) activating() bool {
	out, err := s.production.Try("systemctl list-units --plain --no-legend 'deployer-*-test-*'")
	return err == nil && out != ""
}

// judged is the oracle: the host is exactly what it was, or exactly the new
// system, as the exit code says; one that went back is free for the next run.
func (s *site) judged(r result, before look, want ...int) *labRun {
	s.Helper()
	run := s.latest()
	run.result = r
	if !slices.Contains(want, r.exit) {
		s.Errorf("exit %d, not one of %d\n%s%s", r.exit, want, r.err, s.logTail())
	}
	if r.exit == 0 {
		run.tells("")
		for _, h := range run.plan.Hosts {
			s.agree(s.host(h.Name), h.To)
		}
		return run
	}
	s.equal("production after all", s.look(s.production), before)
	if left := s.production.Enter(s.T, "cat /nix/var/deployer/runs/*/closing.json"); strings.Count(left, `"restored"`) != 1 {
		s.Errorf("production's lane is closed as %s", left)
	}
	return run
}

// guardCloses waits until the host's guard says that it went back.
func (s *site) guardCloses(patience time.Duration) {
	s.Helper()
	within(s.T, patience, "the guard's way back", func() bool {
		closing, _ := s.production.Try("cat /nix/var/deployer/runs/*/closing.json")
		return strings.Contains(closing, `"by": "guard"`)
	})
}

// The link to a host is cut before, during and after its activation, and healed
// within the guard's time or when that is over.
func TestLabLinkCut(t *testing.T) {
	for _, c := range []struct {
		name string
		at   func(*site) bool
		heal time.Duration
		want []int // within the guard's time it must not be the guard
	}{
		{"before the activation, for a moment", (*site).armed, 8 * time.Second, []int{0, 20}},
		{"during the activation, for a moment", (*site).activating, 8 * time.Second, []int{0}},
		{"after the activation, for a moment", (*site).tried, 4 * time.Second, []int{0}},
		{"before the activation", (*site).armed, 45 * time.Second, []int{21}},
		{"during the activation", (*site).activating, 45 * time.Second, []int{21}},
		{"after the activation", (*site).tried, 45 * time.Second, []int{21}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newWindow(t)
			if c.heal < 10*time.Second {
				s.book(runbook("app", "")) // far from the guard's deadline, however slow the machine is
			}
			before := s.look(s.production)
			_, wait := s.start("run", "lab", "--yes")
			within(t, 90*time.Second, c.name, func() bool { return c.at(s) })
			s.production.Net(t, "cut")
			time.Sleep(c.heal)
			s.production.Net(t, "heal")
			s.judged(wait(), before, c.want...)
		})
	}
}

// A link that stays cut: the run ends as unknown and says that the host goes
// back by itself, which it has done.
func TestLabLinkStaysCut(t *testing.T) {
	s := newWindow(t)
	before := s.look(s.production)
	_, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the activation", s.activating)
	s.production.Net(t, "cut")
	r := wait()
	run := s.judged(r, before, 31)
	s.says(r, "production goes back by itself")
	run.lanes(state.Restored, state.OutOfReach)
	run.notified()
	s.production.Net(t, "heal")
	s.production.WaitSSH(t)
	s.run(0, "--retry-rejected", "--reason", "the link was cut").lanes(state.Committed, state.Committed)
}

// A system that cuts the host off is undone by the host alone.
func TestLabContactIsLost(t *testing.T) {
	for name, options := range map[string]string{
		"a firewall drops everything": `{"networking":{"firewall":{"dropAll":true}}}`,
		"the network goes down":       `{"lab":{"network":{"down":true}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newWindow(t, options)
			before := s.looks()
			r := s.run(21)
			before()
			s.judged(r.result, s.look(s.production), 21)
			r.lanes(state.Restored, state.Restored)
			r.notified()
		})
	}
}

// The controller dies in the window and nobody comes back: the host goes back.
func TestLabControllerIsGone(t *testing.T) {
	for name, at := range map[string]func(*site) bool{"during the activation": (*site).activating, "before the commit": (*site).contacts} {
		t.Run(name, func(t *testing.T) {
			s := newWindow(t)
			s.book(strings.Replace(runbook(`{command: "sleep 3", within: 4s}`, ""), "confirm_within: 5m", window, 1))
			before := s.look(s.production)
			cmd, wait := s.start("run", "lab", "--yes")
			within(t, 90*time.Second, name, func() bool { return at(s) })
			_ = cmd.Process.Kill()
			wait()
			s.guardCloses(time.Minute)
			s.judged(result{exit: 21}, before, 21)
			rejected := s.production.Enter(t, "cat /nix/var/deployer/rejected.json")
			if to := s.latest().plan.Hosts[0].To; !strings.Contains(rejected, to) {
				t.Errorf("%s is not rejected: %s", to, rejected)
			}
		})
	}
}

// A host that loses its power or boots within the window comes back as it was:
// nothing was its default yet, and the rest is the guard's, which goes on.
func TestLabPowerInTheWindow(t *testing.T) {
	for _, action := range []string{"reboot", "powerloss"} {
		t.Run(action, func(t *testing.T) {
			s := newWindow(t)
			before := s.look(s.production)
			_, wait := s.start("run", "lab", "--yes")
			within(t, 90*time.Second, "the end of the activation", s.tried)
			s.production.Power(t, action)
			if action == "powerloss" {
				s.production.Power(t, "start")
			}
			s.judged(wait(), before, 20, 21)
		})
	}
}

// Without the module no guard outlives a boot; the boot default is what does.
func TestLabRebootWithoutTheModule(t *testing.T) {
	s := newWindow(t)
	const off = `{"services":{"deployer-host":{"enable":false}}}`
	s.systems("{}", off)
	s.run(0)
	old := s.production.Facts(t)
	s.systems("{}", deep(t, off, `{"services":{"app":{"version":"2.0"}}}`))
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the end of the activation", s.tried)
	_ = cmd.Process.Kill()
	wait()
	s.production.Power(t, "reboot")
	s.production.WaitSSH(t)
	s.agree(s.production, old.System)
	s.equal("generations after the boot", s.production.Facts(t).Generations, old.Generations)
}

// The provider of snapshots is killed at its call, for which it was stopped
// before. It is started and asked again, once, and takes each snapshot once.
func TestLabSnapshotProviderIsKilled(t *testing.T) {
	s := newWindow(t)
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the provider", func() bool {
		return s.reached(state.StepDone, "staging/snapshot@staging") && signalPlugin(cmd.Process.Pid, "btrfs", syscall.SIGSTOP)
	})
	within(t, time.Minute, "its call", func() bool { return s.reached(state.StepIntent, "switch/snapshot@production") })
	time.Sleep(300 * time.Millisecond) // the call is on its way
	if !signalPlugin(cmd.Process.Pid, "btrfs", syscall.SIGKILL) {
		t.Error("it was gone before")
	}
	s.judged(wait(), look{}, 0).snapshots("production", s.production)
	s.equal("snapshots of /persist", s.production.Enter(t, "ls /.snapshots/deployer | grep -c persist"), "1")
}

// A notifier that is killed at its call fails no deployment. It is caught as it
// waits for somebody who reads what it writes.
func TestLabNotifierIsKilled(t *testing.T) {
	s := newWindow(t)
	s.shell(0, "mkfifo notifications.jsonl")
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the notifier", func() bool { return signalPlugin(cmd.Process.Pid, "file", syscall.SIGCONT) })
	time.Sleep(300 * time.Millisecond)
	if !signalPlugin(cmd.Process.Pid, "file", syscall.SIGKILL) {
		t.Error("it was gone before")
	}
	s.judged(wait(), look{}, 0)
}

// signalPlugin sends a signal to a controller's plugin process, if there is one.
func signalPlugin(controller int, plugin string, sig syscall.Signal) (sent bool) {
	children, _ := exec.Command("pgrep", "-P", fmt.Sprint(controller)).Output()
	for _, word := range strings.Fields(string(children)) {
		line, _ := os.ReadFile(filepath.Join("/proc", word, "cmdline"))
		if pid, err := strconv.Atoi(word); err == nil && strings.Contains(string(line), "plugin-serve\x00"+plugin) {
			sent = syscall.Kill(pid, sig) == nil || sent
		}
	}
	return sent
}

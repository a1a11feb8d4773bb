package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/state"
)

// terminal is a pseudo-terminal that deployer runs on.
type terminal struct {
	*site
	cmd    *exec.Cmd
	master *os.File
	mu     sync.Mutex
	said   bytes.Buffer
}

func (s *site) onTerminal(args ...string) *terminal {
	s.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		s.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer tty.Close()
	t := &terminal{site: s, master: master, cmd: exec.Command(binary(s.T), args...)}
	t.cmd.Dir, t.cmd.Env = s.dir, append(os.Environ(), "XDG_STATE_HOME="+s.state, "TERM=xterm", "CI=")
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = tty, tty, tty
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			t.mu.Lock()
			t.said.Write(buf[:n])
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.String()
}

// press types Ctrl-C and waits for what is said of it.
func (t *terminal) press(says string) {
	t.Helper()
	if _, err := t.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	within(t.T, 10*time.Second, says, func() bool { return strings.Contains(t.text(), says) })
}

func (t *terminal) ends(exit int) {
	t.Helper()
	if code := exitCode(t.T, t.cmd.Wait()); code != exit {
		t.Fatalf("exit %d, not %d:\n%s", code, exit, t.text())
	}
}

// Ctrl-C on a terminal: once saves the run after its step, twice goes back now,
// three times leaves, with the hosts as they are. SIGTERM is as once.
func TestLabInterrupted(t *testing.T) {
	slow := func(t *testing.T) *site {
		t.Parallel()
		s := newSite(t)
		s.systems("{}", `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"sleep":5}}}`)
		return s
	}
	t.Run("once", func(t *testing.T) {
		s := slow(t)
		p := s.onTerminal("run", "lab", "--yes")
		within(t, 90*time.Second, "the activation", s.activating)
		p.press("the run can be resumed")
		p.ends(130)
		run := s.latest()
		for _, words := range []string{"production: its guard goes back by itself in ", "deployer resume " + run.id, "deployer abort " + run.id} {
			if !strings.Contains(p.text(), words) {
				t.Errorf("does not say %q:\n%s", words, p.text())
			}
		}
		if got := run.of("switch/test@production", state.StepDone); len(got) != 1 {
			t.Error("the step was not ended before the stop")
		}
		s.want(0, "resume")
		s.serves(s.production, "2.0")
	})
	t.Run("twice", func(t *testing.T) {
		s := slow(t)
		same := s.looks()
		p := s.onTerminal("run", "lab", "--yes")
		within(t, 90*time.Second, "the activation", s.activating)
		p.press("the run can be resumed")
		p.press("going back now")
		p.ends(22)
		same()
	})
	t.Run("three times", func(t *testing.T) {
		s := slow(t)
		same := s.looks()
		p := s.onTerminal("run", "lab", "--yes")
		within(t, 90*time.Second, "the activation", s.activating)
		p.press("the run can be resumed")
		p.press("going back now")
		p.press("deployer abort")
		p.ends(130)
		s.want(22, "abort")
		same()
	})
	t.Run("SIGTERM", func(t *testing.T) {
		s := slow(t)
		same := s.looks()
		cmd, wait := s.start("run", "lab", "--yes")
		within(t, 90*time.Second, "the activation", s.activating)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if r := wait(); r.exit != 130 {
			t.Fatalf("exit %d\n%s", r.exit, r.err)
		}
		s.want(22, "abort")
		same()
	})
}

// A controller that is paused past its lease, while a colleague takes the run
// over and ends it, can do nothing any more when it wakes up.
func TestLabTakenOverWhilePaused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"sleep":4}}}`)
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the activation", s.activating)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	run := s.latest()
	other := s.colleague()
	other.says(other.want(4, "resume", run.id), "works on run "+run.id, "--take-over")
	time.Sleep(state.LeaseExpires)
	other.want(0, "resume", run.id, "--take-over")
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := wait(); r.exit != 6 {
		t.Errorf("the old controller: exit %d\n%s%s", r.exit, r.out, r.err)
	}
	for _, h := range run.plan.Hosts {
		s.agree(s.host(h.Name), h.To)
	}
}

// What a person has to sign, with nobody there, waits for `resume`.
func TestLabSignedLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.book(strings.Replace(runbook("app", ""), "  - switch:", "  - gate: agreed\n    items: [{sign: ops, text: staging was looked at}]\n  - switch:", 1))
	r := s.run(4, "--no-input")
	s.says(r.result, "ops has to sign", "deployer resume "+r.id+" --sign ops")
	s.says(s.want(0, "status"), r.id, string(state.Waiting))
	s.want(4, "resume", "--no-input")
	s.want(0, "resume", "--no-input", "--sign", "ops=Anna")
	s.serves(s.production, "1.1.0")
	if got := s.latest().of("agreed/sign-1", state.Decision); len(got) != 1 || !strings.Contains(got[0].Reason, "Anna") {
		t.Errorf("signed as %+v", got)
	}
}

// A system that failed on a host is not tried there again without a reason.
func TestLabRejected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0","startFail":true}}}`)
	failed := s.run(20)
	same := s.looks()
	s.says(s.run(5).result, "failed on production before, in run "+failed.id, "--retry-rejected --reason")
	s.want(10, "run", "lab", "--yes", "--retry-rejected")
	s.run(20, "--retry-rejected", "--reason", "the disk was full")
	same()
}

// Damage in the record stops forward work, but neither `status` nor the way back.
func TestLabDamagedRecord(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.systems("{}", `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"sleep":4}}}`)
	same := s.looks()
	cmd, wait := s.start("run", "lab", "--yes")
	within(t, 90*time.Second, "the activation", s.activating)
	_ = cmd.Process.Kill()
	wait()
	dirs := s.runs()
	name := filepath.Join(dirs[len(dirs)-1], "journal.jsonl")
	s.damage(name)
	s.says(s.want(5, "resume"), "damage", "deployer abort")
	s.want(22, "abort")
	same()
}

// damage spoils the second record of a journal.
func (s *site) damage(name string) {
	s.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		s.Fatal(err)
	}
	b[bytes.IndexByte(b, '\n')+20] ^= 0x20
	if err := os.WriteFile(name, b, 0o600); err != nil {
		s.Fatal(err)
	}
	s.says(s.want(0, "status"), "damage")
}

// Of a restore of data with a damaged record, `resume` said `abort`, and `abort`
// said `resume`.
func TestLabADamagedRestoreOfDataIsFinished(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const at = "/var/lib/services"
	s.production.Enter(t, "echo old > "+at+"/mine; sync")
	s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
	s.run(0)
	s.production.Enter(t, "echo new > "+at+"/mine; sync")
	kept := len(s.runs())
	cmd, wait := s.start("snapshots", "restore", "production", s.snapshotsOf(at)[0].Path, "--yes")
	within(t, 30*time.Second, "the restore", func() bool {
		return len(s.runs()) > kept && strings.Contains(s.written(), string(state.UndoIntent))
	})
	_ = cmd.Process.Kill()
	wait()
	run := s.latest()
	s.damage(filepath.Join(run.dir, "journal.jsonl"))
	s.says(s.want(5, "abort", run.id), "deployer resume "+run.id)
	s.want(0, "resume", run.id)
	s.holds(map[string]string{at + "/mine": "old"})
	s.serves(s.production, "2.0")
}

// Somebody else sets the profile under our lock: the run is held for a person.
func TestLabForeignGeneration(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.book(runbook(`{command: "test ${host} != production || nix-env -p /nix/var/nix/profiles/system --set $(readlink -f /run/current-system/sw)", within: 20s}`, ""))
	r := s.run(4)
	s.says(r.result, "somebody else changed the profile")
	s.want(22, "abort")
}

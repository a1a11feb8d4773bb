package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/phases/agent"
)

// pipes are a process's two ends.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// apply does one operation by an agent of its own on the host and wants that it
// ends so; "" that the host goes down.
func (s *site) apply(h labtest.Host, wanted string, op agent.Operation) {
	s.Helper()
	self, err := os.ReadFile("/proc/self/exe") // under its digest this binary is an agent
	if err != nil {
		s.Fatal(err)
	}
	sum := sha256.Sum256(self)
	digest := hex.EncodeToString(sum[:])
	ssh := func(args ...string) *exec.Cmd {
		return exec.Command("ssh", append([]string{string(h), agent.LauncherPath}, args...)...)
	}
	install := ssh("install", digest)
	install.Stdin = strings.NewReader(string(self))
	if out, err := install.CombinedOutput(); err != nil {
		s.Fatalf("%v\n%s", err, out)
	}
	serve := ssh("run", digest, "serve")
	in, _ := serve.StdinPipe()
	out, _ := serve.StdoutPipe()
	if err := serve.Start(); err != nil {
		s.Fatal(err)
	}
	defer serve.Wait()
	c := agent.NewClient(pipes{out, in})
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	var o agent.Outcome
	err = c.Call(ctx, agent.OpApply, op, &o)
	if wanted == "" && (errors.Is(err, agent.ErrLost) || o.Message == "rebooting") {
		return
	}
	if err != nil || o.State != wanted {
		s.Fatalf("%s is %q, not %q: %s %v", op.Op, o.State, wanted, o.Message, err)
	}
}

func TestLabTrial(t *testing.T) {
	t.Parallel()
	newSite(t).tries("bootctl set-oneshot nixos-generation-1.conf")
}

func TestLabGrubTrial(t *testing.T) {
	t.Parallel()
	newGrubSite(t).tries("grub-editenv /boot/grub/grubenv set next_entry=0")
}

// tries starts a system once, by the agent alone; other is a one-shot choice
// that is not deployer's.
func (s *site) tries(other string) {
	h := s.production
	s.systems("{}", `{"services":{"app":{"version":"1.3.0"}},"lab":{"kernel":{"version":"6.12.9"}}}`)
	old, next := h.Facts(s.T).System, labtest.Build(s.T, s.dir, "hetzner-vps")
	s.shell(0, "nix copy --to ssh://root@"+string(h)+" "+next)
	same := s.looks()
	boot := &agent.Boot{System: old}
	try, end := agent.Operation{Op: agent.DoTrial, System: next, Boot: boot}, agent.Operation{Op: agent.DoTrial, Boot: boot}
	s.apply(h, "already", end)

	s.apply(h, "done", try)
	s.apply(h, "already", try)
	s.apply(h, "done", end) // before it was used
	same()
	s.apply(h, "already", end)

	s.apply(h, "done", try)
	s.rebootBy(h, agent.Operation{Op: agent.DoReboot, System: next})
	s.equal("booted", h.Facts(s.T).Booted, next)
	s.apply(h, "already", agent.Operation{Op: agent.DoReboot, System: next})
	h.Enter(s.T, other)
	s.apply(h, "done", end)
	s.rebootBy(h, agent.Operation{Op: agent.DoReboot, System: old})
	same()
}

// rebootBy lets the agent reboot the host, and waits for it.
func (s *site) rebootBy(h labtest.Host, op agent.Operation) {
	s.Helper()
	const id = "cat /proc/sys/kernel/random/boot_id; readlink /run/booted-system; stat -c %Y /proc/1"
	before := h.Enter(s.T, id)
	s.apply(h, "", op)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if now, err := h.Try(id); err == nil && now != before {
			break
		} else if time.Now().After(end) {
			s.Fatalf("%s did not boot again", h)
		}
	}
	h.WaitSSH(s.T)
}

package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/state"
)

func TestLabReboot(t *testing.T)     { reboots(t, newSite) }
func TestLabGrubReboot(t *testing.T) { reboots(t, newGrubSite) }

// A system that can only be booted.
const anotherInit = `{"services":{"app":{"version":"2.0"}},"lab":{"initInterface":"systemd 4"}}`

const bootID = "cat /proc/sys/kernel/random/boot_id"

// reboots takes the reboot route, to its end and back.
func reboots(t *testing.T, fresh func(*testing.T) *site) {
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		fresh(t).rebootsWell()
	})
	t.Run("somebody has to agree", func(t *testing.T) {
		t.Parallel()
		s := fresh(t)
		s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, anotherInit)
		r := s.run(4)
		s.says(r.result, "resume "+r.id+" --sign reboot")
		s.serves(s.production, "1.0.0")
		s.want(0, "resume", r.id, "--sign", "reboot")
		s.equal("what production booted", s.production.Facts(t).Booted, r.plan.Hosts[0].To)
	})
	t.Run("it hangs, and somebody cycles the power", func(t *testing.T) {
		t.Parallel()
		s := fresh(t)
		s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, deep(t, anotherInit, `{"lab":{"activation":{"hang":true}}}`))
		s.rebootBook("app", "5m")
		same := s.looks()
		_, wait := s.start("run", "lab", "--yes")
		s.hangs()
		s.production.Power(t, "kill")
		s.production.Power(t, "start")
		if r := wait(); r.exit != 20 {
			t.Fatalf("exit %d\n%s", r.exit, r.err)
		}
		same()
		s.forgotten(s.production)
	})
	for name, now := range map[string]func(s *site, booted string) bool{
		"killed before it": func(s *site, _ string) bool { return strings.Contains(s.written(), `"switch/reboot@production"`) },
		"killed after it": func(s *site, booted string) bool {
			is, err := s.production.Try(bootID)
			return err == nil && is != booted
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, anotherInit)
			s.rebootBook("app", "5m")
			booted := s.production.Enter(t, bootID)
			cmd, wait := s.start("run", "lab", "--yes")
			within(t, time.Minute, "the reboot", func() bool { return now(s, booted) })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			wait()
			s.production.WaitSSH(t)
			s.want(0, "resume", s.latest().id)
			s.equal("what production booted", s.production.Facts(t).Booted, s.latest().plan.Hosts[0].To)
			s.forgotten(s.production)
		})
	}
	for name, v := range map[string]struct {
		exit               int
		production, checks string
		within             string
		fails              string
	}{
		"the service answers 500": {20, `{"services":{"app":{"healthy":false}}}`, "app, healthy", "5m", "validate/healthy@production"},
		"nobody can log in":       {21, `{"services":{"openssh":{"enable":false}}}`, "app", "15s", "switch/reboot@production"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, deep(t, meddle, anotherInit, v.production))
			s.rebootBook(v.checks, v.within)
			same, booted := s.looks(), s.production.Enter(t, bootID)
			r := s.run(v.exit)
			same()
			if s.production.Enter(t, bootID) == booted {
				t.Error("production was not rebooted")
			}
			s.serves(s.production, "1.0.0")
			r.tells(v.fails)
			r.lanes(state.Restored, state.Restored)
			r.restored("staging", "production")
			s.forgotten(s.production)
		})
	}
}

// rebootBook is the runbook `lab` with the reboot route, and its files: those
// that a new root does not have.
func (s *site) rebootBook(checks, within string) {
	s.Helper()
	s.production.Enter(s.T, strings.ReplaceAll(writeDeclared, "/etc/hand.conf", "/persist/hand.conf"))
	book := strings.NewReplacer("confirm_within: 5m", "reboot: auto, confirm_within: "+within, "/etc/hand.conf, ", "").Replace(runbook(checks, ""))
	s.book(strings.Replace(book, "{host: staging}", "{host: staging, checks: [{reboot: true}]}", 1))
}

func (s *site) rebootsWell() {
	s.systems(`{"services":{"app":{"version":"1.2.0"}}}`, anotherInit)
	s.rebootBook("app", "5m")
	before := map[labtest.Host]string{}
	for _, h := range []labtest.Host{s.staging, s.production} {
		before[h] = h.Enter(s.T, bootID)
	}
	same := s.looks()
	plan := s.want(0, "run", "lab", "--dry-run")
	plan.err = strings.Join(strings.Fields(plan.out), " ") // without line breaks
	s.says(plan, "the old system stays the default (to see that it boots)", "only if it cannot be activated live: reboot into")
	r := s.run(0)
	r.tells("")
	r.lanes(state.Committed, state.Committed)
	for _, h := range r.plan.Hosts {
		on := s.host(h.Name)
		s.agree(on, h.To)
		s.equal("what "+h.Name+" booted", on.Facts(s.T).Booted, h.To)
		s.equal(h.Name+" was rebooted", on.Enter(s.T, bootID) != before[on], true)
		s.forgotten(on)
	}
	s.equal("live activations of production", len(r.of("switch/test@production", state.StepSkipped)), 1)
	s.equal("of staging", len(r.of("staging/test@staging", state.StepDone)), 1)

	s.want(0, "rollback", "--yes") // the kernel goes back, too
	same()
}

// forgotten wants no trial any more.
func (s *site) forgotten(h labtest.Host) {
	s.Helper()
	left := h.Enter(s.T, fmt.Sprint(`ls -A /nix/var/nix/profiles/system-profiles; ls /boot/loader/oneshot 2>/dev/null; `,
		`grep -rl 'deployer' /boot/loader/entries /boot/grub/grub.cfg 2>/dev/null; grep -s next_entry /boot/grub/grubenv || true`))
	s.equal("what is left of the trial on "+string(h), left, "")
}

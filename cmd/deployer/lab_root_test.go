package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// keepsRoot is a system with a persistent root; the lab's others get a new one
// at each boot.
const keepsRoot = `{"boot":{"kernelParams":["panther.keep_root"]}}`

// writesRoot is one that changes what is on it, at each activation.
const writesRoot = `{"services":{"app":{"version":"2.0"}},"lab":{"activation":{"script":"echo new > /etc/mine"}}}`

const rootUUID = `btrfs subvolume show / | sed -n 's/^\s*UUID:\s*//p'`

// rootSite has hosts whose root is persistent, with content of their own: in it,
// and in a subvolume that is nested in it.
func rootSite(t *testing.T, policy, book string, production ...string) *site {
	s := newSite(t)
	s.systems(keepsRoot, keepsRoot)
	s.run(0)
	for _, h := range []labtest.Host{s.staging, s.production} {
		h.Power(t, "reboot")
		h.WaitSSH(t)
	}
	s.production.Enter(t, "echo old > /etc/mine; btrfs -q subvolume create /vm; echo old > /vm/disk; sync")
	s.systems(keepsRoot, deep(t, production...))
	s.edit("/var/lib/caddy: keep", "/var/lib/caddy: keep\n    /: "+policy)
	s.book(book)
	return s
}

func rootBook(checks, settings string) string {
	return strings.Replace(runbook(checks, ""), "confirm_within: 5m", settings, 1)
}

// isRoot wants the root to be the subvolume with the uuid, and to be mounted by its own name.
func (s *site) isRoot(uuid string) {
	s.Helper()
	s.equal("the root", s.production.Enter(s.T, rootUUID+"; findmnt -no FSROOT /"), uuid+"\n/root")
}

// The persistent root goes back as a whole, by a boot; what it was is kept.
func TestLabRootComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		checks, settings, production string
		exit                         int
	}{
		"by a person":          {"app", "reboot: ask, confirm_within: 5m", "{}", 0},
		"when the run fails":   {"app, healthy", "reboot: auto, confirm_within: 5m", `{"services":{"app":{"healthy":false}}}`, 20},
		"by the host's guard":  {"app", "reboot: auto, confirm_within: 15s", `{"services":{"openssh":{"enable":false}}}`, 21},
		"unless somebody asks": {"app, healthy", "reboot: ask, confirm_within: 5m", `{"services":{"app":{"healthy":false}}}`, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := rootSite(t, "restore", rootBook(c.checks, c.settings), keepsRoot, writesRoot, c.production)
			before, booted, root := s.looks(), s.production.Enter(t, bootID), s.production.Enter(t, rootUUID)
			r := s.run(c.exit).result
			s.holds(map[string]string{"/vm/disk": "old"})
			if name == "unless somebody asks" {
				s.says(r, "/ stays as the new system left it (it goes back by a reboot")
				before()
				s.isRoot(root)
				s.holds(map[string]string{"/etc/mine": "new"})
				s.equal("the boot", s.production.Enter(t, bootID), booted)
				return
			}
			if c.exit == 0 {
				s.production.Enter(t, "echo new > /vm/disk; echo new > /etc/later")
				s.says(s.want(0, "rollback", "--dry-run"), "/etc/mine", "/etc/later", "/disk", "reboot into")
				r = s.want(0, "rollback", "--yes")
			}
			before()
			s.serves(s.production, "1.1.0")
			s.holds(map[string]string{"/etc/mine": "old", "/etc/later": "", "/vm/disk": "old"})
			if s.production.Enter(t, bootID) == booted {
				t.Error("production was not rebooted")
			}
			_, at, _ := strings.Cut(r.told(), "production: /: what it was is kept as ")
			at, _, _ = strings.Cut(at, ";")
			s.equal("what was replaced", s.production.Enter(t, "cat "+at+"/etc/mine"), "new")
		})
	}
}

// A new layout puts the old root away at its first boot. The system before needs it.
func TestLabLayoutChangeIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		checks, production string
		exit               int
	}{
		"by a person":         {"app", "{}", 0},
		"when the run fails":  {"app, healthy", `{"services":{"app":{"healthy":false}}}`, 20},
		"when its boot hangs": {"app", `{"lab":{"activation":{"hang":true}}}`, 20},
		"by the host's guard": {"app", `{"services":{"openssh":{"enable":false}}}`, 21},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within := "confirm_within: 5m"
			if c.exit == 21 {
				within = "confirm_within: 15s"
			}
			s := rootSite(t, "keep", rootBook(c.checks, "reboot: auto, "+within), anotherInit, c.production)
			before, root := s.looks(), s.production.Enter(t, rootUUID)
			_, wait := s.start("run", "lab", "--yes")
			if name == "when its boot hangs" {
				s.hangs()
				s.production.Power(t, "kill")
				s.production.Power(t, "start")
			}
			if r := wait(); r.exit != c.exit {
				t.Fatalf("exit %d: %s%s%s", r.exit, r.out, r.err, s.logTail())
			}
			if c.exit == 0 {
				s.holds(map[string]string{"/etc/mine": "", "/btrfs_tmp/old_roots/*/etc/mine": "old"})
				s.production.Enter(t, "echo fresh > /etc/mine; sync")
				s.production.Power(t, "reboot")
				s.production.WaitSSH(t)
				s.want(0, "rollback", "--yes")
				s.equal("the root of the layout that is undone", s.production.Enter(t, "cat /btrfs_tmp/old_roots/*/etc/mine"), "fresh")
			}
			before()
			s.isRoot(root)
			s.serves(s.production, "1.1.0")
			s.holds(map[string]string{"/etc/mine": "old", "/vm/disk": "old"})
			s.forgotten(s.production)
		})
	}
}

// hangs waits until the new system's boot does.
func (s *site) hangs() {
	s.Helper()
	within(s.T, time.Minute, "the new system's boot", func() bool {
		log, err := os.ReadFile(filepath.Join(filepath.Dir(os.Getenv("LAB_BIN")), string(s.production), "log"))
		boots := strings.Split(string(log), "lab: booting ")
		return err == nil && strings.Contains(boots[len(boots)-1], "deployer") && strings.HasSuffix(string(log), "setting up /etc...\n")
	})
}

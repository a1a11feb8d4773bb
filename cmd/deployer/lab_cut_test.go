package main_test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// cuts are the ends that a controller's work on production can come to.
var cuts = map[string]func(*site, *exec.Cmd){
	"controller": func(_ *site, c *exec.Cmd) { _ = c.Process.Kill() },
	"plugin": func(s *site, c *exec.Cmd) {
		if !signalPlugin(c.Process.Pid, "btrfs", syscall.SIGKILL) {
			s.Error("there is no plugin")
		}
	},
	"agent": func(s *site, _ *exec.Cmd) { s.production.Enter(s.T, killAgents) },
	"power": func(s *site, _ *exec.Cmd) { powerCycle(s.T, s.production) },
}

// killAgents ends every process of the agent on a host at once.
const killAgents = "pkill -9 -f ^/nix/var/deployer/bin/"

func powerCycle(t *testing.T, h labtest.Host) {
	h.Power(t, "powerloss")
	h.Power(t, "start")
	h.WaitSSH(t)
}

// A run that is cut off while its set is taken leaves its host as it was, whom
// the set has stopped goes on, and doing it again does all of it.
func TestLabSnapshotIsCutShort(t *testing.T) {
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
			s.edit("/persist: keep", "/persist: {on_rollback: keep, stop: [slow.service]}")
			s.production.Enter(t, "printf '[Service]\\nExecStart=/bin/sleep infinity\\nExecStop=/bin/sleep 2\\n' > /run/systemd/system/slow.service && systemctl start slow")
			slow := func(is string) func() bool {
				return func() bool {
					out, _ := s.production.Try("systemctl show -P ActiveState slow.service")
					return strings.TrimSpace(out) == is
				}
			}
			cmd, wait := s.start("run", "lab", "--yes")
			within(t, time.Minute, "the set", slow("deactivating"))
			cut(s, cmd)
			exit, run := wait().exit, s.latest().id
			if name != "power" { // its unit went with the power
				within(t, time.Minute, "what the set had stopped", slow("active"))
			}
			switch name {
			case "controller":
				s.want(0, "resume", run)
			case "plugin", "agent": // another one asks, or is asked, with the same operation, and gets the set
				s.equal("exit", exit, 0)
			default: // a host that booted is not what it was
				s.equal("exit", exit, 20)
				s.serves(s.production, "1.0.0")
				s.run(0)
			}
			s.serves(s.production, "2.0")
			if left := strings.Fields(s.production.Enter(t, "ls /.snapshots/deployer")); len(left) != 3 {
				t.Errorf("not one whole set: %q", left)
			}
			s.want(0, "rollback", "--yes")
			s.serves(s.production, "1.0.0")
		})
	}
}

// A restore that is cut off goes on on the host, or is ended by whoever comes.
func TestLabSnapshotsRestoreIsCutShort(t *testing.T) {
	const at = "/var/lib/services"
	for name, cut := range cuts {
		if name == "plugin" { // it has no part in this
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.production.Enter(t, "echo old > "+at+"/mine; sync")
			s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
			deployed := s.run(0).id
			s.production.Enter(t, "echo new > "+at+"/mine; sync")
			snap, kept := s.snapshotsOf(at)[0], len(s.runs())
			cmd, wait := s.start("snapshots", "restore", "production", snap.Path, "--yes")
			within(t, 30*time.Second, "the restore", func() bool {
				jobs, _ := s.production.Try("ls /nix/var/deployer/runs/*/data-*.json")
				return len(s.runs()) > kept && jobs != ""
			})
			cut(s, cmd)
			if run := s.latest().id; wait().exit != 0 {
				s.want(0, "resume", run)
			}
			s.holds(map[string]string{at + "/mine": "old"})
			s.serves(s.production, "2.0")
			s.want(0, "rollback", "--yes", deployed)
			s.serves(s.production, "1.0.0")
		})
	}
}

// A copy that is cut off at either end is not taken for one, and the next goes
// on from the last that is complete.
func TestLabSendIsCutShort(t *testing.T) {
	for name, cut := range map[string]func(*site){
		"agent there": func(s *site) { s.production.Enter(s.T, killAgents) },
		"agent here":  func(s *site) { s.staging.Enter(s.T, killAgents) },
		"power there": func(s *site) { powerCycle(s.T, s.production) },
		"power here":  func(s *site) { powerCycle(s.T, s.staging) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.edit("snapshots:\n", fmt.Sprintf("backup:\n  off-host: {address: %s, user: deploy, path: /persist/backup, subvolumes: [/persist]}\n\nsnapshots:\n", s.staging))
			s.staging.Enter(t, "btrfs -q subvolume create /persist/backup; sync")
			send := []string{"snapshots", "send", "--host", "production"}
			s.want(0, send...)
			big := s.production.Enter(t, "head -c 200M /dev/urandom > /persist/big; sync; sha256sum < /persist/big")
			_, wait := s.start(send...)
			within(t, time.Minute, "the big file", func() bool {
				out, _ := s.staging.Try("find /persist/backup/production/.deployer/receiving-* -name big -size +8M")
				return out != ""
			})
			cut(s)
			s.equal("exit", wait().exit, 15)
			s.says(s.deployer("snapshots", "verify"), "complete, next from it")
			s.says(s.want(0, send...), "what changed since")
			s.want(0, "snapshots", "verify")
			at := s.staging.Enter(t, "ls -d /persist/backup/production/*-backup-*persist | tail -n1")
			s.equal("the big file", s.staging.Enter(t, "sha256sum < "+at+"/big"), big)
			s.equal("partial copies", s.staging.Enter(t, "ls -d /persist/backup/production/.deployer/receiving-* 2>/dev/null || true"), "")
			s.equal("snapshots of copies on production", s.production.Enter(t, "btrfs subvolume list / | grep -c 'Z-backup-'"), "1")
		})
	}
}

// A prune that is cut off as the first snapshot goes has deleted nothing but
// what goes, and the next ends it.
func TestLabPruneIsCutShort(t *testing.T) {
	for name, cut := range cuts {
		if name == "plugin" { // it has no part in this
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			const at = "/var/lib/services"
			for _, v := range []string{"1.1", "1.2", "1.3"} {
				s.systems("{}", `{"services":{"app":{"version":"`+v+`"}}}`)
				s.edit("subvolumes:", "keep: {good_runs: 1, failed_days: 30}\n  subvolumes:")
				s.run(0)
			}
			had := s.snapshotsOf(at)
			begun := make(chan error, 1)
			go func() {
				_, err := s.production.Try("cd /.snapshots/deployer; n=$(ls | wc -l); while [ $(ls | wc -l) = $n ]; do :; done")
				begun <- err
			}()
			cmd, wait := s.start("snapshots", "prune", "--yes")
			if err := <-begun; err != nil {
				t.Fatal(err)
			}
			cut(s, cmd)
			wait()
			s.want(0, "snapshots", "prune", "--yes")
			s.equal("snapshots at last", s.snapshotsOf(at), had[2:])
			s.want(0, "rollback", "--yes")
			s.serves(s.production, "1.2")
		})
	}
}

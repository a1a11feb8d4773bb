package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases/agent"
)

// snapshotsOf are production's snapshots of a path, oldest first.
func (s *site) snapshotsOf(path string) (list []agent.Snapshot) {
	s.Helper()
	var rows []view.SnapshotsOf
	if err := json.Unmarshal([]byte(s.want(0, "snapshots", "list", "--host", "production", "--json").out), &rows); err != nil || len(rows) != 1 {
		s.Fatal(err, rows)
	}
	for _, snap := range rows[0].Snapshots {
		if snap.Source == path {
			list = append(list, snap)
		}
	}
	return list
}

// Data goes back without its system, and comes again; a single file too.
func TestLabSnapshotsRestore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const at = "/var/lib/services"
	s.production.Enter(t, "echo old > "+at+"/mine; echo old > /persist/kept")
	s.systems("{}", `{"services":{"app":{"version":"2.0"}}}`)
	s.run(0)
	s.production.Enter(t, "echo new > "+at+"/mine; echo new > "+at+"/later; echo new > /persist/kept")
	before := s.looks()
	snap := s.snapshotsOf(at)[0]
	s.says(s.want(0, "snapshots", "list"), "staging", "production", snap.UUID[:8], "run "+snap.Run)

	s.says(s.want(0, "snapshots", "diff", "production", snap.UUID[:8]), at+"/later", at+"/mine", "1 lost, 1 changed back")
	s.says(s.want(0, "snapshots", "restore", "production", snap.Path, "--dry-run"), at+"/later")
	s.says(s.want(10, "snapshots", "restore", "production", snap.Path), "--yes")
	s.says(s.want(10, "snapshots", "restore", "production", "no-such"), "0 snapshots on production")
	before()
	s.holds(map[string]string{at + "/mine": "new", at + "/later": "new"})

	s.production.Enter(t, "printf '[Unit]\\nStartLimitIntervalSec=1h\\nStartLimitBurst=1\\n[Service]\\nWorkingDirectory="+at+"\\nExecStart=/bin/sleep infinity\\n' > /run/systemd/system/user-of-it.service"+
		" && printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > /run/systemd/system/by-hand.service && systemctl add-wants --runtime multi-user.target by-hand"+
		" && systemctl add-requires --runtime multi-user.target user-of-it && systemctl start user-of-it") // at its start limit, and not forgotten
	started := s.production.Enter(t, "systemctl show -P ActiveEnterTimestampMonotonic user-of-it")
	done := s.want(0, "snapshots", "restore", "production", snap.Path, "--yes", "--reason", "OPS-7")
	s.says(done, "verified", "is kept as")
	before()
	s.holds(map[string]string{at + "/mine": "old", at + "/later": "", "/persist/kept": "new"})
	s.serves(s.production, "2.0")
	if again := s.production.Enter(t, "systemctl show -P ActiveEnterTimestampMonotonic user-of-it"); again == started || again == "0" {
		t.Errorf("the service that uses the subvolume was not stopped and started: %s", again)
	}
	if is := s.production.Enter(t, "systemctl is-active multi-user.target by-hand || true"); is != "active\ninactive" {
		t.Errorf("the target that stopped along, and what it wants but a person had stopped, are %s", is)
	}
	s.says(s.want(0, "show"), "OPS-7", "restored", "what it was is kept as")
	s.says(s.want(0, "report"), "what it was is kept as")

	all := s.snapshotsOf(at)
	replaced := all[len(all)-1]
	if len(all) != 2 || !replaced.Replaced {
		t.Fatalf("%+v", all)
	}
	s.says(s.want(0, "snapshots", "diff", "production", replaced.Path), "comes back", at+"/later")
	undo, _, _ := strings.Cut(s.hint(done, "deployer snapshots restore production "+replaced.UUID[:8]), "#")
	s.says(s.want(5, "rollback", "--yes", s.latest().id), undo)
	s.shell(0, undo+" --yes") // the restore is undone
	s.holds(map[string]string{at + "/mine": "new", at + "/later": "new"})

	s.want(10, "snapshots", "restore", "production", snap.Path, replaced.Path, "--dry-run")
	s.want(10, "snapshots", "restore", "production", snap.Path, replaced.Path, "--yes")
	kept := len(s.runs())

	// What holds the subvolume is in the way: nothing is touched, and the host is not stuck.
	s.production.Enter(t, "cd "+at+"; systemd-run -q --scope --slice=user sleep 300 >/dev/null 2>&1 & echo $! > /run/holder")
	s.says(s.want(1, "snapshots", "restore", "production", snap.Path, "--yes"), "process", "nothing was changed", "deployer snapshots restore production "+snap.UUID[:8])
	s.equal("runs", len(s.runs()), kept+1)
	s.holds(map[string]string{at + "/mine": "new", at + "/later": "new"})
	s.production.Enter(t, "kill $(cat /run/holder)")

	s.want(10, "snapshots", "restore", "production", snap.Path, "--file", at+"/mine")
	dry := func(code int, file string) result { // checked like the real one, and worded as what would happen
		return s.want(code, "snapshots", "restore", "production", snap.Path, "--dry-run", "--file", file)
	}
	s.says(dry(0, at+"/mine"), "would put "+at+"/mine", "would be kept beside it")
	s.says(dry(15, "app/nope"), "there is no /app/nope in the snapshot "+snap.Path)
	s.says(dry(10, "/etc/passwd"), "/etc/passwd is not in "+at)
	s.says(s.want(10, "snapshots", "list", "--host", "nope"), `deployer.yaml has no host "nope"`)
	s.says(s.want(10, "snapshots", "diff", "production", snap.UUID[:3]), "at least 4 characters")
	s.want(10, "snapshots", "restore", "production", snap.Path, "--file", at+"/mine", "--yes", "--reason", "OPS-7")
	s.says(s.want(0, "snapshots", "restore", "production", snap.Path, "--file", at+"/mine", "--yes"), "is kept as")
	s.holds(map[string]string{at + "/mine": "old", at + "/later": "new"})
	s.want(0, "snapshots", "restore", "production", snap.Path, "--file", "mine", "--to", "/persist/copy", "--yes")
	s.holds(map[string]string{"/persist/copy": "old"})

	s.want(0, "rollback", "--yes") // the run under all of it is still to be undone
	s.serves(s.production, "1.0.0")
}

// Snapshots go by how their runs ended, and the way back of a run with them.
func TestLabSnapshotsPrune(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const at = "/var/lib/services"
	for _, v := range []string{"1.1", "1.2", "1.3"} {
		s.systems("{}", `{"services":{"app":{"version":"`+v+`"}}}`)
		s.edit("subvolumes:", "keep: {good_runs: 1, failed_days: 30}\n  subvolumes:")
		s.run(0)
	}
	s.production.Enter(t, "mkdir -p /.snapshots/7 && btrfs -q subvolume snapshot -r "+at+" /.snapshots/7/snapshot")
	had := s.snapshotsOf(at)
	s.says(s.want(0, "snapshots", "list", "--all"), "snapper")
	dry := s.want(0, "snapshots", "prune", "--dry-run")
	s.says(dry, "goes", "1 good runs are newer", "kept", "of the last good run")
	s.equal("snapshots after a dry run", s.snapshotsOf(at), had)
	s.says(s.want(10, "snapshots", "prune"), "--yes")

	s.production.Enter(t, "mkdir /run/held && mount --bind "+had[1].Path+" /run/held")
	s.says(s.want(0, "snapshots", "prune", "--yes"), "deleted", "stays", "mounted at /run/held")
	s.production.Enter(t, "umount /run/held && rmdir /run/held && test -d /.snapshots/7/snapshot")
	s.equal("snapshots after", s.snapshotsOf(at), had[1:])
	s.want(0, "snapshots", "prune", "--yes")
	s.equal("snapshots at last", s.snapshotsOf(at), had[2:])
	s.says(s.want(15, "rollback", "--yes", had[0].Run), "was given up when its snapshots were pruned")
	if left := s.production.Enter(t, "ls /nix/var/nix/gcroots/deployer | grep "+had[0].Run+" || true"); left != "" {
		t.Errorf("roots of a run that is not to be undone: %s", left)
	}
	s.want(0, "rollback", "--yes")
	s.serves(s.production, "1.2")
}

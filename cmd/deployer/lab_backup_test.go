package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/backup"
)

// The copies of production lie on staging's disk, and a run asks for them.
func TestLabOffHostCopy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("snapshots:\n", fmt.Sprintf("backup:\n  off-host: {address: %s, user: deploy, path: /persist/backup, subvolumes: [/persist, /var/lib/services]}\n\nsnapshots:\n", s.staging))
	s.book(strings.Replace(runbook("app", ""), "phases:\n", "phases:\n  - gate: ready\n    items: [{check: {backup: off-host, max_age: 24h, when: age_seconds < 3600}}]\n", 1))
	send := []string{"snapshots", "send", "--host", "production"}

	s.says(s.want(15, send...), "there is no folder /persist/backup", "on the backup host "+string(s.staging), "ssh "+string(s.staging)+" 'btrfs subvolume create /persist/backup'")
	s.staging.Enter(t, "btrfs -q subvolume create /persist/backup")
	same := s.looks()
	s.says(s.run(1).result, "has no complete copy of /persist of production", "deployer snapshots send --host production")
	s.says(s.want(15, "snapshots", "verify"), "there is no complete copy of /persist", "staging is the backup host itself, and left out")

	s.production.Enter(t, "head -c 4M /dev/urandom > /persist/some")
	s.says(s.want(0, send...), "in full")
	s.says(s.want(0, "snapshots", "verify"), "complete, next from it")
	s.production.Enter(t, "echo more > '/persist/a file'")
	var sent []backup.Sent
	if err := json.Unmarshal([]byte(s.want(0, append(send, "--json")...).out), &sent); err != nil || len(sent) != 2 {
		t.Fatalf("%v %+v", err, sent)
	}
	for _, c := range sent {
		if c.Since.IsZero() || c.Bytes > 256<<10 {
			t.Errorf("not only what changed: %+v", c)
		}
	}

	// The controller is killed in the middle of a big one.
	big := s.production.Enter(t, "head -c 200M /dev/urandom > /persist/big; sha256sum < /persist/big")
	cmd, wait := s.start(send...)
	receiving := func() bool {
		out, _ := s.staging.Try("find /persist/backup/production/.deployer/receiving-* -name big -size +8M")
		return out != ""
	}
	if !eventually(time.Minute, receiving) {
		t.Fatal("the big file never arrives")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
	if !eventually(time.Minute, func() bool { return !receiving() }) {
		t.Error("what was cut short stays")
	}
	s.want(0, "snapshots", "verify")
	r := s.want(0, send...)
	s.says(r, "what changed since", "changes")
	at := s.staging.Enter(t, "ls -d /persist/backup/production/*-backup-*persist | tail -n1")
	if got := s.staging.Enter(t, "sha256sum < "+at+"/big"); got != big {
		t.Errorf("%s: %s, want %s", at, got, big)
	}
	if left := s.production.Enter(t, "btrfs subvolume list / | grep -c 'Z-backup-'"); left != "2" {
		t.Errorf("%s snapshots stay on production, want those that the next copy starts from", left)
	}
	same()
	s.run(0)
	s.edit("snapshots:\n", "snapshots:\n  keep: {most: 1}\n")
	s.says(s.want(0, "snapshots", "prune", "--host", "production", "--dry-run"), "stays", "held by backup")

	s.staging.Enter(t, "btrfs property set -f "+at+" ro false; echo x > "+at+"/a; btrfs property set "+at+" ro true")
	s.says(s.want(15, "snapshots", "verify"), at, "btrfs subvolume delete")
	s.says(s.want(0, send...), "in full")
}

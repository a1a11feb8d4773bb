package main_test

import (
	"fmt"
	"testing"
)

// The README's way back from a copy: it is sent back, and data comes out of it.
func TestLabRestoreFromAnOffHostCopy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("snapshots:\n", fmt.Sprintf("backup:\n  off-host: {address: %s, user: deploy, path: /persist/backup, subvolumes: [/var/lib/services]}\n\nsnapshots:\n", s.staging))
	s.staging.Enter(t, "btrfs -q subvolume create /persist/backup")
	s.production.Enter(t, "mkdir -p /var/lib/services/mine; echo old > /var/lib/services/mine/f")
	s.want(0, "snapshots", "send", "--host", "production")
	s.production.Enter(t, "echo new > /var/lib/services/mine/f")

	at := s.staging.Enter(t, "ls -d /persist/backup/production/*-backup-*")
	stream := s.staging.Enter(t, "btrfs -q send "+at+" | base64 -w0")
	s.production.Enter(t, "mkdir -p /persist/back; base64 -d <<X | btrfs -q receive /persist/back\n"+stream+"\nX")
	name := s.production.Enter(t, "ls -d /persist/back/*")
	for _, cmd := range [][]string{{"diff", "production", name}, {"restore", "production", name, "--yes"}} { // it got stuck at the top level
		s.says(s.want(10, append([]string{"snapshots"}, cmd...)...), "nobody knows what "+name+" is a snapshot of", "--file NAME --to PATH")
	}
	s.want(0, "snapshots", "restore", "production", name, "--file", "mine", "--to", "/var/lib/services/mine", "--yes")
	s.holds(map[string]string{"/var/lib/services/mine/f": "old"})
}

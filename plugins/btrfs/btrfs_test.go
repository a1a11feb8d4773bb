package btrfs_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/btrfs"
	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/plugintest"
)

func volume(path, fsid string, id uint64) agent.Volume {
	name := strings.Trim(path, "/")
	return agent.Volume{Path: path, Btrfs: true, Root: true, ID: id, UUID: fsid + name, Name: name, FS: "btrfs", FSID: fsid}
}

// machine has a root that no boot keeps, and data on two file systems.
func machine() *plugintest.Host {
	services := volume("/var/lib/services", "a", 258)
	services.Nested = []string{"/var/lib/services/vm", "/var/lib/services/db"}
	byDefault, byID := volume("/default", "a", 301), volume("/by-id", "a", 302)
	byDefault.Default, byID.ByID = true, []string{"/etc/fstab"}
	folder := volume("/etc", "a", 300)
	folder.Root, folder.Problem = false, "/etc is a folder, not a subvolume"
	return &plugintest.Host{Volumes: []agent.Volume{
		{Path: "/", FS: "tmpfs"},
		volume("/persist", "a", 257), services, volume("/var/lib/services/db", "a", 259), volume("/nix", "a", 256), folder, byDefault, byID,
		volume("/srv/data", "b", 257), volume("/srv", "b", 5),
		{Path: "/boot", FS: "vfat", Problem: "/boot is not a folder on Btrfs"},
	}}
}

func subjects(paths ...string) []host.Subvolume {
	var list []host.Subvolume
	for _, at := range paths {
		list = append(list, host.Subvolume{Path: at, OnRollback: "keep"})
	}
	return list
}

func open(t *testing.T, h *plugintest.Host) *host.Plugin {
	t.Helper()
	return openOn(t, host.Services{Operator: h, Writes: agent.Writes})
}

func openOn(t *testing.T, services host.Services) *host.Plugin {
	t.Helper()
	p, err := plugintest.Connect(t, btrfs.Plugin(), nil, services)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConformance(t *testing.T) {
	plugintest.Snapshotter(t, btrfs.Plugin, machine, subjects("/persist", "/var/lib/services", "/srv/data")...)
}

func TestASetIsOneOperation(t *testing.T) {
	h := machine()
	_, err := open(t, h).Create(t.Context(), host.SnapshotRequest{Run: "r", OperationID: "o", Subvolumes: subjects("/persist", "/srv/data", "/var/lib/services")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.Asked(), []string{agent.OpSnapshot}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

func TestProblemsAreSaidInWords(t *testing.T) {
	for _, c := range []struct {
		name string
		req  host.SnapshotRequest
		want string
	}{
		{"not Btrfs", host.SnapshotRequest{Subvolumes: subjects("/boot")}, "/boot is not a folder on Btrfs (mounted there is vfat)"},
		{"missing", host.SnapshotRequest{Subvolumes: subjects("/gone")}, "/gone does not exist"},
		{"a folder", host.SnapshotRequest{Subvolumes: subjects("/etc")}, "/etc is a folder inside the subvolume"},
		{"the default one", host.SnapshotRequest{Subvolumes: []host.Subvolume{{Path: "/default", OnRollback: "ask"}}}, "/default cannot be restored: it is the default subvolume"},
		{"by id", host.SnapshotRequest{Subvolumes: []host.Subvolume{{Path: "/by-id", OnRollback: "restore"}}}, "/by-id cannot be restored: /etc/fstab mounts it by subvolid=: use subvol=/by-id there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := machine()
			s := open(t, h)
			plan, err := s.Plan(t.Context(), c.req)
			if err != nil || !strings.Contains(strings.Join(plan.Problems, "\n"), c.want) {
				t.Errorf("plan: %v, problems %q, want %q", err, plan.Problems, c.want)
			}
			if len(h.Taken()) > 0 {
				t.Errorf("taken: %v", h.Taken())
			}
		})
	}
}

// What is nested has the policy of the nearest that was declared; paused are all
// units at once.
func TestPoliciesAndPauses(t *testing.T) {
	req := host.SnapshotRequest{Run: "r", OperationID: "o", Subvolumes: []host.Subvolume{
		{Path: "/var/lib/services", OnRollback: "restore", Pause: []string{"b.service", "a.service"}},
		{Path: "/var/lib/services/db", OnRollback: "ask", Pause: []string{"a.service"}}, {Path: "/persist"}}}
	res, err := open(t, machine()).Create(t.Context(), req)
	got := map[string]string{}
	for _, s := range res.Set.Snapshots {
		got[s.Source] = s.Policy
	}
	want := map[string]string{"/persist": "keep", "/var/lib/services": "restore", "/var/lib/services/db": "ask", "/var/lib/services/vm": "restore"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v: %v", err, got)
	}
	if len(res.Recipe) != 2 || !res.Recipe[0].Data.Stay || len(res.Recipe[0].Data.Snapshots) != 2 || res.Recipe[1].Op != agent.DoStart {
		t.Errorf("%+v", res.Recipe)
	}
}

// full is a machine without space.
type full struct{ *plugintest.Host }

func (f full) Operate(ctx context.Context, ref, op string, args json.RawMessage) (json.RawMessage, error) {
	if op == agent.OpSnapshot {
		return nil, &agent.Error{Code: "no-space", Message: "no space left", Hint: []string{"btrfs filesystem usage /persist"}}
	}
	return f.Host.Operate(ctx, ref, op, args)
}

func TestAgentsErrorsKeepTheirCode(t *testing.T) {
	_, err := openOn(t, host.Services{Operator: full{machine()}, Writes: agent.Writes}).Create(t.Context(), host.SnapshotRequest{Run: "r", OperationID: "o", Subvolumes: subjects("/persist")})
	var e *host.Error
	if !errors.As(err, &e) || e.Code != "no-space" || len(e.Hint) != 1 || !strings.Contains(e.Message, "cannot snapshot /persist: no space left") {
		t.Errorf("%#v", err)
	}
}

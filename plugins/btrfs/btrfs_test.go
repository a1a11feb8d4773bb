package btrfs_test

import (
	"errors"
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
	return agent.Volume{Path: path, Btrfs: true, Root: true, ID: id, UUID: fsid + name, Name: name, FS: "btrfs", FSID: fsid, Free: 1 << 30}
}

// machine has a root that no boot keeps, and data on two file systems.
func machine() *plugintest.Host {
	services := volume("/var/lib/services", "a", 258)
	services.Nested = []string{"/var/lib/services/vm", "/var/lib/services/db"}
	folder := volume("/etc", "a", 300)
	folder.Root, folder.Problem = false, "/etc is a folder, not a subvolume"
	return &plugintest.Host{Volumes: []agent.Volume{
		{Path: "/", FS: "tmpfs"},
		volume("/persist", "a", 257), services, volume("/var/lib/services/db", "a", 259), volume("/nix", "a", 256), folder,
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

func open(t *testing.T, h *plugintest.Host) host.Snapshotter {
	t.Helper()
	return openOn(t, host.Services{Operator: h, Writes: plugintest.Writes})
}

func openOn(t *testing.T, services host.Services) host.Snapshotter {
	t.Helper()
	p, err := plugintest.Connect(t, btrfs.Plugin(), nil, services)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := p.Snapshotter()
	return s
}

func TestConformance(t *testing.T) {
	plugintest.Snapshotter(t, btrfs.Plugin, machine, subjects("/persist", "/var/lib/services", "/srv/data")...)
}

func TestASetOnOneFileSystemIsOneOperation(t *testing.T) {
	h := machine()
	_, err := open(t, h).Create(t.Context(), host.SnapshotRequest{Run: "r", OperationID: "o", Subvolumes: subjects("/persist", "/srv/data", "/var/lib/services")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.Asked(), []string{agent.OpDiscover, agent.OpSnapshot, agent.OpSnapshot}; !slices.Equal(got, want) {
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
		{"missing on Btrfs", host.SnapshotRequest{Subvolumes: subjects("/persist/gone")}, "/persist/gone does not exist"},
		{"dir below", host.SnapshotRequest{Dir: "/var/lib/services/db/snaps", Subvolumes: subjects("/var/lib/services")}, "lies inside /var/lib/services"},
		{"a folder", host.SnapshotRequest{Subvolumes: subjects("/etc")}, "/etc is a folder inside the subvolume"},
		{"dir inside", host.SnapshotRequest{Dir: "/persist/snaps", Subvolumes: subjects("/persist")}, "lies inside /persist, which it is to protect"},
		{"dir relative", host.SnapshotRequest{Dir: "snaps", Subvolumes: subjects("/persist")}, "not an absolute path"},
		{"dir not Btrfs", host.SnapshotRequest{Dir: "/snaps", Subvolumes: subjects("/persist")}, "/snaps, is not on Btrfs"},
		{"no folder", host.SnapshotRequest{Subvolumes: subjects("/srv")}, "set snapshots.dir"},
		{"restore", host.SnapshotRequest{Subvolumes: []host.Subvolume{{Path: "/persist", OnRollback: "restore"}}}, `on_rollback "restore" is not built`},
		{"pause", host.SnapshotRequest{Subvolumes: []host.Subvolume{{Path: "/persist", Pause: []string{"postgresql.service"}}}}, "pause (postgresql.service) is not built"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := machine()
			s := open(t, h)
			plan, err := s.Plan(t.Context(), c.req)
			if err != nil || !strings.Contains(strings.Join(plan.Problems, "\n"), c.want) {
				t.Errorf("plan: %v, problems %q, want %q", err, plan.Problems, c.want)
			}
			c.req.OperationID = "o"
			_, err = s.Create(t.Context(), c.req)
			var e *host.Error
			if !errors.As(err, &e) || e.Code != "invalid" || len(h.Taken()) > 0 {
				t.Errorf("create: %#v, taken %v", err, h.Taken())
			}
		})
	}
}

func TestWhatASnapshotLeavesOutIsNamed(t *testing.T) {
	s := open(t, machine())
	plan, err := s.Plan(t.Context(), host.SnapshotRequest{Subvolumes: subjects("/var/lib/services", "/var/lib/services/db")})
	if err != nil || len(plan.NotCovered) != 1 || !strings.HasPrefix(plan.NotCovered[0], "/var/lib/services/vm:") {
		t.Errorf("%v, not covered %q", err, plan.NotCovered)
	}
}

func TestSnapshotsNeverLieInsideWhatTheyProtect(t *testing.T) {
	for _, c := range []struct {
		name, dir, want string
		subjects        []string
	}{
		{"deployer's own", "", "/nix/var/deployer/snapshots", []string{"/persist"}},
		{"as configured", "/var/lib/services/snaps", "/var/lib/services/snaps", []string{"/persist"}},
		{"configured on another file system", "/srv/snaps", "/nix/var/deployer/snapshots", []string{"/persist"}},
		{"beside", "", "/srv/.deployer-snapshots", []string{"/srv/data"}},
		{"not in a subject", "", "", []string{"/nix", "/persist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, err := open(t, machine()).Plan(t.Context(), host.SnapshotRequest{Dir: c.dir, Subvolumes: subjects(c.subjects...)})
			if err != nil || plan.Dirs[c.subjects[0]] != c.want {
				t.Errorf("%v, %v, want %q", err, plan.Dirs, c.want)
			}
		})
	}
}

func TestSnapshotsGoWhereAdministratorsLook(t *testing.T) {
	for root, want := range map[bool]string{true: "/.snapshots/deployer", false: "/nix/var/deployer/snapshots"} {
		h := machine()
		usual := volume("/.snapshots", "a", 270)
		usual.Root = root
		h.Volumes = append(h.Volumes, usual)
		plan, err := open(t, h).Plan(t.Context(), host.SnapshotRequest{Subvolumes: subjects("/persist")})
		if err != nil || plan.Dirs["/persist"] != want {
			t.Errorf("%v, %v, want %q", err, plan.Dirs, want)
		}
	}
}

func TestCreatedAgainItAnswersWithTheSetThatIsThere(t *testing.T) {
	h := machine()
	s := open(t, h)
	req := host.SnapshotRequest{Run: "r", OperationID: "o", Stamp: "20260301T020000Z", Subvolumes: subjects("/persist", "/srv/data")}
	first, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Create(t.Context(), req)
	if err != nil || len(again.Set.Snapshots) != 2 || again.Set.Snapshots[1] != first.Set.Snapshots[1] {
		t.Errorf("%v: %+v, then %+v", err, first, again)
	}
	req.Run = "other"
	req.Stamp = "20260301T030000Z"
	if _, err := s.Create(t.Context(), req); err != nil || len(h.Taken()) != 4 {
		t.Errorf("another run: %v, %d snapshots", err, len(h.Taken()))
	}
}

func TestAgentsErrorsKeepTheirCode(t *testing.T) {
	h := machine()
	h.Fail = func(op string) error {
		if op != agent.OpSnapshot {
			return nil
		}
		return &agent.Error{Code: "no-space", Message: "no space left", Hint: []string{"btrfs filesystem usage /persist"}}
	}
	_, err := open(t, h).Create(t.Context(), host.SnapshotRequest{Run: "r", OperationID: "o", Subvolumes: subjects("/persist")})
	var e *host.Error
	if !errors.As(err, &e) || e.Code != "no-space" || len(e.Hint) != 1 || !strings.Contains(e.Message, "cannot snapshot /persist: no space left") {
		t.Errorf("%#v", err)
	}
}

func TestProbe(t *testing.T) {
	if detail, err := open(t, machine()).Probe(t.Context(), "web-1"); err != nil || !strings.HasPrefix(detail, "2 Btrfs") {
		t.Errorf("%q %v", detail, err)
	}
	if _, err := open(t, &plugintest.Host{}).Probe(t.Context(), "web-1"); err == nil || !strings.Contains(err.Error(), "no Btrfs") {
		t.Errorf("%v", err)
	}
}

package btrfs_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
)

// loopback is a Btrfs of its own with the subvolumes data, data/nested and other.
func loopback(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a real Btrfs needs root, for mount")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "m")
	for i, line := range []string{
		"truncate -s 256M " + image, "mkfs.btrfs -q " + image, "mkdir " + mount, "mount -o loop " + image + " " + mount,
		"btrfs subvolume create " + mount + "/data", "btrfs subvolume create " + mount + "/data/nested", "btrfs subvolume create " + mount + "/other",
	} {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no real Btrfs here: %s: %v %s", line, err, out)
		}
		if i == 3 {
			t.Cleanup(func() { _ = exec.Command("umount", mount).Run() })
		}
	}
	return mount
}

// served is the real agent, in this process.
type served struct{ *agent.Client }

func serve(t *testing.T) served {
	here, there := net.Pipe()
	go func() {
		_ = agent.Serve(context.Background(), there, there, agent.Options{Root: filepath.Join(t.TempDir(), "state")})
	}()
	c := agent.NewClient(here)
	t.Cleanup(func() { c.Close(); there.Close() })
	return served{c}
}

func (s served) Operate(ctx context.Context, _, op string, args json.RawMessage) (json.RawMessage, error) {
	var result json.RawMessage
	err := s.Call(ctx, op, args, &result)
	return result, err
}

func TestARealBtrfs(t *testing.T) {
	mount := loopback(t)
	s := openOn(t, host.Services{Operator: serve(t), Writes: agent.Writes})
	req := host.SnapshotRequest{
		Run: "20260301T020000Z-ab12", OperationID: "o", Stamp: "20260301T020000Z", Dir: mount + "/snaps", Subvolumes: subjects(mount+"/data", mount+"/other"),
	}
	plan, err := s.Plan(t.Context(), req)
	if err != nil || len(plan.Problems) > 0 {
		t.Fatalf("%v: %+v", err, plan)
	}
	first, err := s.Create(t.Context(), req)
	if err != nil || len(first.Set.Snapshots) != 3 || !first.Set.Snapshots[0].ReadOnly {
		t.Fatalf("%v: %+v", err, first)
	}
	again, err := s.Create(t.Context(), req)
	if err != nil || len(again.Set.Snapshots) != 3 || !reflect.DeepEqual(again.Set.Snapshots[1], first.Set.Snapshots[1]) {
		t.Errorf("%v: %+v, then %+v", err, first, again)
	}
	wrong := req
	wrong.Subvolumes = append(subjects(mount+"/data", mount+"/gone"), subjects(mount+"/snaps")...)
	plan, err = s.Plan(t.Context(), wrong)
	if err != nil || len(plan.Problems) != 2 {
		t.Errorf("%v: %q", err, plan.Problems)
	}
	req.Dir, req.Stamp = mount+"/data/nested/snaps", "20260301T030000Z"
	_, err = s.Create(t.Context(), req)
	var e *host.Error
	if !errors.As(err, &e) || e.Code != "invalid" || !strings.Contains(e.Message, "inside a subvolume of the set") {
		t.Errorf("%#v", err)
	}
}

package activate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

var on = phases.On{Lane: "h1"}

func names(steps []phases.Step) string {
	var n []string
	for _, s := range steps {
		n = append(n, s.Name()+":"+string(phases.ClassOf(s)))
	}
	return strings.Join(n, " ")
}

func TestSteps(t *testing.T) {
	in := &phases.Inputs{Project: &runbooks.Project{}, Runbook: &runbooks.Runbook{}}
	if got := names(Steps(in, "h1", nil)); got != "lock:idempotent copy:idempotent dry-activate:read guard:idempotent test:probe reboot:reboot" {
		t.Errorf("got %s", got)
	}
	in.Project.Snapshots = &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/persist": {}}}
	steps, err := Compile(in, &runbooks.Phase{Switch: &runbooks.Switch{Host: "h1"}})
	if got := names(steps); err != nil || got != "lock:idempotent copy:idempotent dry-activate:read snapshot:idempotent guard:idempotent test:probe reboot:reboot" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestDrift(t *testing.T) {
	seen := agent.Facts{System: "/s/a", Profile: agent.Profile{System: "/s/a"}, Boot: agent.Boot{System: "/s/a"}, BootID: "b1"}
	for _, tt := range []struct {
		name   string
		change func(seen, now *agent.Facts)
		want   []string
	}{
		{"nothing moved", func(_, _ *agent.Facts) {}, nil},
		{"system", func(_, now *agent.Facts) { now.System = "/s/b" }, []string{"the running system was /s/a, is /s/b"}},
		{"profile", func(_, now *agent.Facts) { now.Profile.System = "/s/b" }, []string{"the profile was /s/a, is /s/b"}},
		{"boot default", func(_, now *agent.Facts) { now.Boot.System = "/s/b" }, []string{"the boot default was /s/a, is /s/b"}},
		{"rebooted", func(_, now *agent.Facts) { now.BootID = "b2" }, []string{"the boot id was b1, is b2"}},
		{"everything", func(_, now *agent.Facts) { *now = agent.Facts{System: "/s/b", BootID: "b2"} },
			[]string{"the running system was /s/a, is /s/b", "the profile was /s/a, is ", "the boot default was /s/a, is ", "the boot id was b1, is b2"}},
		{"what planning could not see", func(seen, now *agent.Facts) { seen.Boot.System, now.Boot.System = "", "/s/b" }, nil},
	} {
		a, b := seen, seen
		tt.change(&a, &b)
		if got := drift(a, b); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Promise 12: a host that moved since it was planned for is refused, with the
// reason, and nothing of it is changed.
func TestPromise12DriftedHostIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		env := m.Env()
		m.With(func(w *phasetest.World) { w.Facts.System = phasetest.New })
		err := lock{on}.Do(t.Context(), env)
		f := phases.AsFailure(err)
		if f.Exit != phases.ExitRefused || !strings.Contains(f.Error(), "the host is not what was planned for: the running system was") || !slices.Equal(f.Hint, []string{"deployer plan production"}) {
			t.Errorf("got %+v", f)
		}
		if got := m.Trace.String(); got != "lock" {
			t.Errorf("did %s", got)
		}
	})
}

func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		env := m.Env()
		env.Lane.Files = []agent.File{{Path: "/etc/a"}}
		m.With(func(w *phasetest.World) { w.Files["/etc/a"] = agent.File{Digest: "d1"} })
		var holder agent.LockArgs
		m.Handle(agent.OpLock, func(args json.RawMessage) (any, error) { return agent.Holder{Epoch: 1}, json.Unmarshal(args, &holder) })
		if err := (lock{on}).Do(t.Context(), env); err != nil {
			t.Fatal(err)
		}
		if l := env.Lane; !l.Locked || l.Before.System != phasetest.Old || l.Before.Files["/etc/a"] != "d1" {
			t.Errorf("locked %t, before %+v", l.Locked, l.Before)
		}
		if holder.Run != "r1" || holder.Owner != "me@here" || holder.Reason != "production" || holder.Force {
			t.Errorf("held by %+v", holder)
		}
		m.Handle(agent.OpLock, func(json.RawMessage) (any, error) {
			return nil, &agent.Error{Code: "locked", Message: "this host is locked by you"}
		})
		env.Lane.Locked = false
		if err := (lock{on}).Do(t.Context(), env); err == nil || err.Error() != "this host is locked by you" {
			t.Errorf("got %v", err)
		}
	})
}

func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		r, controller := phasetest.Run(m)
		env := &phases.Env{Run: r, Lane: r.Lanes[0]}
		controller.OnArgs("nix", "--extra-experimental-features", "nix-command flakes", "copy", "--to", "ssh-ng://fake", phasetest.New).Once()
		if err := (transfer{on}).Do(t.Context(), env); err != nil || m.Trace.String() != "pin-new" {
			t.Errorf("%v: %s", err, m.Trace)
		}
		if env := controller.Calls()[0].Env; !slices.Equal(env, []string{"NIX_SSHOPTS=-p 22"}) {
			t.Errorf("nix copy got %q", env)
		}
		controller.On(hosttest.Prefix("nix"))
		m.Handle(agent.OpProbe, func(json.RawMessage) (any, error) { return agent.Sample{}, nil })
		if err := (transfer{on}).Do(t.Context(), env); err == nil || err.Error() != phasetest.New+" is not a NixOS system: it has no nixos-version" {
			t.Errorf("got %v", err)
		}
	})
}

func TestCopyFailure(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		root         bool
		exit         int
		text, hint   string
	}{
		{"not trusted", "error: cannot add path '/nix/store/x' because it lacks a signature by a trusted key", false, 1, "cannot copy the system: cannot add path", "trusted-users"},
		{"not trusted, as the daemon says it", "error: unexpected end-of-file", false, 1, "cannot copy the system", "trusted-users"},
		{"cut, as root", "error: unexpected end-of-file", true, 1, "cannot copy the system", ""},
		{"full", "error: writing to file: No space left on device", false, 15, "cannot copy the system", "ssh h1.example:22 df -h /nix"},
		{"full, as sqlite says it", "error: committing: disk I/O error", false, 15, "cannot copy the system", "df -h /nix"},
		{"something else", "error: boom", false, 1, "cannot copy the system: boom", ""},
	} {
		env := phasetest.Make(t, "h1").Env()
		env.Lane.Seen.Root, env.Lane.Seen.User = tt.root, "deploy"
		f := phases.AsFailure(copyFailure(&nix.Error{Args: []string{"nix"}, Code: 1, Output: []string{tt.output}}, env))
		hint := strings.Join(f.Hint, "")
		if f.Exit != tt.exit || !strings.HasPrefix(f.Error(), tt.text) || !strings.Contains(hint, tt.hint) || tt.hint == "" && hint != "" || len(f.Output) != 1 {
			t.Errorf("%s: exit %d, %q, hint %q", tt.name, f.Exit, f, hint)
		}
	}
	if err := copyFailure(io.EOF, nil); !errors.Is(err, io.EOF) {
		t.Errorf("another error became %v", err)
	}
}

// The connection that Nix makes for itself had no second try.
func TestCopyThatEndsWithItsConnectionIsMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		attempt      int
		again        bool
	}{
		{"no connection", "error: failed to start SSH connection to 'deploy@h1'", 1, true},
		{"in the middle", "error: unexpected end-of-file", 2, true},
		{"each time", "error: cannot connect to 'deploy@h1'", 3, false},
		{"something else", "error: No space left on device", 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			env := phasetest.Make(t, "h1").Env()
			env.Attempt = tt.attempt
			err := cutShort(t.Context(), env, copyFailure(&nix.Error{Args: []string{"nix"}, Code: 1, Output: []string{tt.output}}, env))
			var retry phases.Retry
			if errors.As(err, &retry) != tt.again || err == nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		})
	}
}

func TestDryActivate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		env := m.Env()
		m.Handle(agent.OpExec, func(args json.RawMessage) (any, error) {
			var e agent.ExecArgs
			if err := json.Unmarshal(args, &e); err != nil || !slices.Equal(e.Args, []string{phasetest.New + "/bin/switch-to-configuration", "dry-activate"}) || e.Timeout == 0 {
				t.Errorf("ran %+v", e)
			}
			return agent.ExecResult{Stderr: []byte("would restart a.service\n\n")}, nil
		})
		if err := (dry{On: on}).Do(t.Context(), env); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(env.Dir.OutputDir(), "phase-step-h1-output.log")); err != nil || !strings.HasPrefix(string(b), "would restart") {
			t.Errorf("kept %q, %v", b, err)
		}
		m.Handle(agent.OpExec, func(json.RawMessage) (any, error) {
			return agent.ExecResult{Code: 1, Stderr: []byte(strings.Repeat("noise\n", 30) + "it is broken\n")}, nil
		})
		f := phases.AsFailure(dry{On: on}.Do(t.Context(), env))
		if f.Error() != "dry-activate ended with exit code 1" || len(f.Output) != 20 || f.Output[19] != "it is broken" {
			t.Errorf("got %+v", f)
		}
	})
}

func TestWhatIsUnchangedIsSkipped(t *testing.T) {
	env := phasetest.Make(t, "h1").Env()
	for _, s := range []phases.Skipper{transfer{on}, dry{On: on}, snapshot{On: on}, test{On: on}} {
		if reason, err := s.Skip(t.Context(), env); reason != "" || err != nil {
			t.Errorf("%T is skipped: %s %v", s, reason, err)
		}
	}
	env.Lane.To.Out = phasetest.Old
	for _, s := range []phases.Skipper{transfer{on}, dry{On: on}, snapshot{On: on}, test{On: on}} {
		if reason, _ := s.Skip(t.Context(), env); reason != "the host runs it already" {
			t.Errorf("%T is not skipped", s)
		}
	}
}

type provider struct {
	plan phases.SnapshotPlan
	set  agent.SnapshotSet
	err  error

	recipe []agent.Operation
}

func (p provider) Plan(context.Context, phases.SnapshotRequest) (phases.SnapshotPlan, error) {
	return p.plan, p.err
}
func (p provider) Create(context.Context, phases.SnapshotRequest) (agent.SnapshotSet, []agent.Operation, error) {
	return p.set, p.recipe, p.err
}

func TestSnapshot(t *testing.T) {
	ro := agent.Snapshot{Path: "/persist/.s/1", ReadOnly: true, UUID: "u1"}
	taken, other := agent.SnapshotSet{Snapshots: []agent.Snapshot{ro}}, agent.Snapshot{UUID: "u2"}
	for _, tt := range []struct {
		name string
		p    provider
		want string
		exit int
	}{
		{"taken", provider{set: agent.SnapshotSet{Snapshots: []agent.Snapshot{ro}}}, "", 0},
		{"refused", provider{plan: phases.SnapshotPlan{Problems: []string{"/persist is no subvolume", "no room"}}}, "cannot take the snapshots: /persist is no subvolume; no room", 15},
		{"fails", provider{err: errors.New("the plugin is gone")}, "the plugin is gone", 1},
		{"writable", provider{set: agent.SnapshotSet{Snapshots: []agent.Snapshot{ro, {Path: "/b"}}}}, "the snapshot provider returned a writable snapshot", 1},
		{"with a way back", provider{set: taken, recipe: agent.WayBack(taken.Snapshots)}, "", 0},
		{"to another snapshot", provider{set: taken, recipe: agent.WayBack([]agent.Snapshot{other})}, "the snapshot provider's recipe has an operation that is not allowed in it", 1},
		{"with a command", provider{set: taken, recipe: []agent.Operation{{Op: agent.DoActivate, System: "/tmp/x"}}}, "the snapshot provider's recipe has an operation that is not allowed in it", 1},
	} {
		env := phasetest.Make(t, "h1").Env()
		env.Snapshots = tt.p
		err := snapshot{on, &runbooks.Snapshots{}, "ask"}.Do(t.Context(), env)
		if tt.want == "" {
			undo, _ := guard{on, 0}.Undo(t.Context(), env)
			armed := slices.ContainsFunc(undo, func(op agent.Operation) bool { return op.Op == agent.DoData })
			if err != nil || len(env.Lane.Recipe.Snapshots) != 1 || armed != (tt.p.recipe != nil) || env.Lane.Changed() {
				t.Errorf("%s: %v, the recipe has %d, the guard's undo is %v", tt.name, err, len(env.Lane.Recipe.Snapshots), undo)
			}
			continue
		}
		if f := phases.AsFailure(err); !strings.HasPrefix(f.Error(), tt.want) || f.Exit != tt.exit {
			t.Errorf("%s: %d %v", tt.name, f.Exit, err)
		}
	}
}

// By what is free of each kind and not allocated, not by df; and before anything
// is copied.
func TestNoRunWhereBtrfsHasNoRoom(t *testing.T) {
	const gib = 1 << 30
	roomy := agent.Filesystem{FSID: "a", Device: "/dev/sda", Total: 100 * gib, Unallocated: 10 * gib, Data: 50 * gib, DataSize: 60 * gib, Metadata: gib, MetadataSize: 2 * gib, Copies: 2}
	with := func(change func(*agent.Filesystem)) agent.Filesystem {
		f := roomy
		change(&f)
		return f
	}
	for _, c := range []struct {
		name string
		fs   agent.Filesystem
		want string
	}{
		{"roomy", roomy, ""},
		{"data is in chunks that are not full", with(func(f *agent.Filesystem) { f.Unallocated, f.MetadataSize = 1<<20, 4*gib }), ""},
		{"for the closure", with(func(f *agent.Filesystem) { f.Data = 60 * gib; f.Unallocated = 3 * gib }),
			"h1: /dev/sda has no room for a run's data: 0 MiB free and 3072 MiB not allocated, 6144 MiB are needed (the new system is 4096 MiB)"},
		{"metadata is full, df says there is room", with(func(f *agent.Filesystem) { f.Unallocated, f.Metadata = 1<<20, 2*gib }),
			"h1: /dev/sda has no room for a run's metadata: 0 MiB free and 0 MiB not allocated, 512 MiB are needed (the new system is 4096 MiB)"},
		{"what is the kernel's alone", with(func(f *agent.Filesystem) { f.Unallocated, f.Metadata, f.Reserve = 1<<20, gib, gib }),
			"h1: /dev/sda has no room for a run's metadata: 0 MiB free and 0 MiB not allocated, 512 MiB are needed (the new system is 4096 MiB)"},
	} {
		m := phasetest.Make(t, "h1")
		m.Handle(agent.OpDiscover, func(json.RawMessage) (any, error) {
			return agent.Discovery{Volumes: []agent.Volume{{Path: "/nix", FSID: "a"}}, Filesystems: []agent.Filesystem{c.fs}}, nil
		})
		env := m.Env()
		env.Run.Plan = &phases.Plan{Hosts: []phases.PlanHost{{Name: "h1", Diff: &nix.Diff{Missing: 4 * gib}}}}
		found, _, err := env.Room(t.Context(), env.Lane, &env.Plan.Hosts[0])
		err = errors.Join(err, phases.Refuse(found))
		if c.want != "" { // a copy would be an unexpected command
			err = transfer{on}.Do(t.Context(), env)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || phases.AsFailure(err).Exit != phases.ExitPrecondition) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRoomNotesWhatIsUnusual(t *testing.T) {
	m := phasetest.Make(t, "h1")
	m.Handle(agent.OpDiscover, func(json.RawMessage) (any, error) {
		return agent.Discovery{Filesystems: []agent.Filesystem{
			{Device: "/dev/sda", Missing: true, Operation: "balance"}, {Device: "/dev/sdb", Quotas: true, Sending: []string{"btrbk (12)"}}, {Device: "/dev/sdc"}}}, nil
	})
	env := m.Env()
	_, notes, err := env.Room(t.Context(), env.Lane, nil)
	if all := strings.Join(notes, "\n"); err != nil || len(notes) != 4 || !strings.Contains(all, "/dev/sda lacks") || !strings.Contains(all, "balance") ||
		!strings.Contains(all, "/dev/sdb has quotas") || !strings.Contains(all, "btrbk (12)") {
		t.Error(notes, err)
	}
}

func TestSnapshotNeedsBtrfs(t *testing.T) {
	env := phasetest.Make(t, "h1").Env()
	env.Lane.Seen.Space = []agent.Space{{Path: "/persist", FS: "ext4"}, {Path: "/srv", FS: "btrfs"}, {Path: "/boot", FS: "vfat"}}
	s := snapshot{on, &runbooks.Snapshots{Subvolumes: map[string]*runbooks.Subvolume{"/persist": {}, "/srv": {}, "/unseen": {}}}, "ask"}
	found := s.Requires(t.Context(), env)
	if len(found) != 1 || found[0].String() != "h1: a snapshot of /persist is wanted, but it is on ext4, not Btrfs" {
		t.Errorf("found %v", found)
	}
}

func TestUndoOfTest(t *testing.T) {
	env := phasetest.Make(t, "h1").Env()
	l := env.Lane
	l.Seen.Failed, l.Seen.Specialisation = []string{"bad.service"}, "fast"
	l.Seen.Active = []string{
		"web.service", "backup.timer", "db.socket", "session-1.scope", "user@1000.service", "multi-user.target", "run-u12.timer", "run-x.socket", "deployer-r1.timer", "persist.mount",
	}
	l.Files = []agent.File{{Path: "/etc/a", Digest: "d", Mode: 0o600, Content: []byte("x")}, {Path: "/etc/gone"}}
	ops, err := test{On: on}.Undo(t.Context(), env)
	rest, rerr := guard{On: on}.Undo(t.Context(), env)
	if err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	ops = append(ops, rest...)
	got, _ := json.Marshal(ops)
	want, _ := json.Marshal([]agent.Operation{
		{Op: agent.DoStopJob, Unit: "deployer-r1-test-1.service"},
		{Op: agent.DoWriteFile, Path: "/etc/a", Digest: "d", Mode: 0o600, Content: []byte("x")},
		{Op: agent.DoWriteFile, Path: "/etc/gone"},
		{Op: agent.DoActivate, System: phasetest.Old, Action: "test", Allow: []string{"bad.service"}},
		{Op: agent.DoUnits, Units: []string{"web.service", "backup.timer", "db.socket"}}, // no session, no transient unit, no job of ours
	})
	if string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	env.Attempt = 2
	if ops, _ := (test{On: on}).Undo(t.Context(), env); len(ops) != 1 || ops[0].Unit != "deployer-r1-test-2.service" {
		t.Errorf("the second attempt adds %+v", ops)
	}
}

func TestTestStep(t *testing.T) {
	for _, tt := range []struct {
		name    string
		receipt agent.Receipt
		failed  []string // afterwards
		system  string   // afterwards; empty: New
		output  string
		allow   []string
		want    string // part of the error; empty: none
	}{
		{name: "0"},
		{name: "0, a unit fails", failed: []string{"bad.service", "web.service"}, want: "units fail now: web.service"},
		{name: "0, a unit may fail", failed: []string{"bad.service", "web.service"}, allow: []string{"web.service"}},
		{name: "4, what failed before", receipt: agent.Receipt{Code: 4}, failed: []string{"bad.service"}},
		{name: "4, a new one", receipt: agent.Receipt{Code: 4}, failed: []string{"web.service"}, want: "units fail now: web.service"},
		{name: "1", receipt: agent.Receipt{Code: 1}, want: "refused or failed before units were touched (1)"},
		{name: "2", receipt: agent.Receipt{Code: 2}, want: "the activation script failed (2)"},
		{name: "11 waits", receipt: agent.Receipt{Code: 11}, want: "again in 5s: another switch holds the lock"},
		{name: "100", receipt: agent.Receipt{Code: 100}, want: "this needs a reboot, and the runbook says `reboot: never`"},
		{name: "inhibited", receipt: agent.Receipt{Code: 1}, output: "switchInhibitors: dbus -> broker", want: "this needs a reboot, and the runbook says `reboot: never`"},
		{name: "101, done", receipt: agent.Receipt{Code: 101}},
		{name: "101, not done", receipt: agent.Receipt{Code: 101}, system: phasetest.Old, want: "it did not say what it had done"},
		{name: "255", receipt: agent.Receipt{Code: 255}, want: "it did not say what it had done"},
		{name: "killed", receipt: agent.Receipt{Code: 137, Signal: "KILL"}, want: "ended by signal KILL"},
		{name: "too slow", receipt: agent.Receipt{Timeout: true}, want: "the activation did not end within 15m0s and was stopped"},
		{name: "another system", system: phasetest.Old, want: "the host runs 0000000…-nixos-system-old after the activation"},
		{name: "nobody knows", receipt: agent.Receipt{State: "lost"}, want: "nobody knows how it ended: the host has the start of deployer-r1-test-1.service, but not its end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				env.Lane.Before = env.Lane.Seen
				env.Lane.Before.Failed = []string{"bad.service"}
				m.Handle(agent.OpJobStart, func(args json.RawMessage) (any, error) {
					m.With(func(w *phasetest.World) {
						w.Facts.System, w.Facts.Failed = phasetest.New, tt.failed
						if tt.system != "" {
							w.Facts.System = tt.system
						}
					})
					var job agent.Job
					if err := json.Unmarshal(args, &job); err != nil || !slices.Equal(job.Args, []string{phasetest.New + "/bin/switch-to-configuration", "test"}) || job.Timeout != testTimeout {
						t.Errorf("started %+v", job)
					}
					if tt.receipt.State == "" {
						tt.receipt.State = "ended"
					}
					return tt.receipt, nil
				})
				m.Handle(agent.OpJobOutput, func(json.RawMessage) (any, error) { return agent.Output{Lines: []string{tt.output}}, nil })
				err := test{on, tt.allow, reboot{policy: "never"}}.Do(t.Context(), env)
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if _, err := os.Stat(filepath.Join(env.Dir.OutputDir(), "phase-step-h1-output.log")); err != nil && tt.receipt.Code != 0 {
					t.Errorf("its output was not kept: %v", err)
				}
			})
		})
	}
}

// Promise 4: an activation outlives its connection; a second one follows it to
// its end, and starts it at most once.
func TestPromise04ActivationOutlivesTheConnection(t *testing.T) {
	for name, lost := range map[string]string{
		"while it starts": agent.OpJobStart, "while it runs": agent.OpJobWait, "while it is looked at": agent.OpFacts,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				if err := env.Lane.Call(t.Context(), agent.OpFacts, agent.FactsArgs{Brief: true}, &env.Lane.Before); err != nil {
					t.Fatal(err)
				}
				env.Lane.Locked = true
				units, cut, start := map[string]int{}, false, time.Now()
				lose := func() error {
					cut = true
					m.Away(errors.New("the network restarts"))
					time.AfterFunc(10*time.Second, func() { m.Away(nil) })
					return phasetest.ErrDie
				}
				receipt := func() (any, error) {
					if time.Since(start) < 15*time.Second {
						return agent.Receipt{State: "started"}, nil
					}
					m.With(func(w *phasetest.World) { w.Facts.System = phasetest.New })
					return agent.Receipt{State: "ended"}, nil
				}
				m.Handle(agent.OpJobStart, func(args json.RawMessage) (any, error) {
					var job agent.Job
					_ = json.Unmarshal(args, &job)
					units[job.Unit]++
					if lost == agent.OpJobStart && !cut {
						return nil, lose()
					}
					return receipt()
				})
				m.Handle(agent.OpJobWait, func(json.RawMessage) (any, error) {
					if lost == agent.OpJobWait && !cut {
						return nil, lose()
					}
					time.Sleep(5 * time.Second)
					return receipt()
				})
				m.Handle(agent.OpFacts, func(args json.RawMessage) (any, error) {
					if lost == agent.OpFacts && !cut {
						return nil, lose()
					}
					return m.Default(agent.OpFacts, args)
				})
				if err := (test{On: on}).Do(t.Context(), env); err != nil {
					t.Fatal(err)
				}
				if len(units) != 1 || !cut || m.Fake.Dials() != 2 {
					t.Errorf("units %v over %d connections", units, m.Fake.Dials())
				}
			})
		})
	}
}

func TestRequires(t *testing.T) {
	no := false
	for _, tt := range []struct {
		name   string
		change func(f *agent.Facts)
		want   []string // of the findings
		hint   string   // part of the first one's
	}{
		{"root", func(*agent.Facts) {}, nil, ""},
		{"no Nix", func(f *agent.Facts) { f.Nix = ""; f.OS = "debian" }, []string{"h1: there is no Nix on the host"}, "nix --version"},
		{"not NixOS", func(f *agent.Facts) { f.OS = "debian" }, []string{"h1: the host is debian, not NixOS"}, "os-release"},
		{"no system", func(f *agent.Facts) { f.System = "" }, []string{"h1: the host has no /run/current-system"}, "readlink"},
		{"sudo", func(f *agent.Facts) { f.Root, f.User, f.Sudo = false, "deploy", "a password is required" },
			[]string{"h1: the deploy user cannot run the agent: a password is required"}, "deployer debug launcher | ssh root@h1.example:22 "},
		{"no launcher", func(f *agent.Facts) { f.Root, f.User, f.Launcher = false, "deploy", false },
			[]string{"h1: there is no launcher at /nix/var/deployer/agent"}, "deployer debug launcher"},
		{"no launcher, root", func(f *agent.Facts) { f.Launcher = false }, nil, ""},
		{"open run", func(f *agent.Facts) { f.OpenRun = "r0" }, []string{"h1: run r0 was never finished on this host"}, "deployer resume r0"},
		{"another switch", func(f *agent.Facts) { f.SwitchLocked = true }, []string{"h1: another switch-to-configuration is running"}, "fuser"},
		{"not trusted", func(f *agent.Facts) { f.Root, f.User, f.Trusted = false, "deploy", &no },
			[]string{"h1: the Nix daemon does not trust deploy, so it refuses to copy paths that are not signed"}, `trusted-users = [ "root" "deploy" ]`},
		{"trust is not known", func(f *agent.Facts) { f.Root, f.User = false, "deploy" }, nil, ""},
		{"all of it", func(f *agent.Facts) {
			f.Root, f.Sudo, f.OpenRun, f.SwitchLocked, f.Trusted = false, "no", "r0", true, &no
		},
			[]string{"h1: the deploy user cannot run the agent: no", "h1: run r0 was never finished on this host", "h1: another switch-to-configuration is running",
				"h1: the Nix daemon does not trust root, so it refuses to copy paths that are not signed"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := phasetest.Make(t, "h1")
			r, controller := phasetest.Run(m)
			controller.On(hosttest.Prefix("nix")).Out("{}")
			env := &phases.Env{Run: r, Lane: r.Lanes[0]}
			tt.change(&env.Lane.Seen)
			found := append(lock{on}.Requires(t.Context(), env), transfer{on}.Requires(t.Context(), env)...)
			var got []string
			for _, f := range found {
				got = append(got, f.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			if len(found) > 0 && !strings.Contains(found[0].Hint[0], tt.hint) {
				t.Errorf("hint %q, want %q", found[0].Hint, tt.hint)
			}
		})
	}
}

// Who signs what it builds needs no trust.
func TestSignedPathsNeedNoTrust(t *testing.T) {
	no := false
	key := filepath.Join(t.TempDir(), "key.sec")
	if err := os.WriteFile(key, []byte("deployer-1:secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for trusted, want := range map[string]int{"deployer-1:public": 0, "other-1:public": 1} {
		m := phasetest.Make(t, "h1")
		r, controller := phasetest.Run(m)
		controller.On(hosttest.Prefix("nix")).Out(fmt.Sprintf(`{"secret-key-files": {"value": [%q]}}`, key))
		env := &phases.Env{Run: r, Lane: r.Lanes[0]}
		env.Lane.Seen.Root, env.Lane.Seen.Trusted, env.Lane.Seen.TrustedKeys = false, &no, []string{trusted}
		if got := (transfer{on}).Requires(t.Context(), env); len(got) != want {
			t.Errorf("%s: found %v", trusted, got)
		}
	}
}

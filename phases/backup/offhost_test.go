package backup

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

func copyOf(source, uuid string, hour int, problem string, members ...string) agent.Copy {
	at := time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)
	return agent.Copy{Snapshot: agent.Snapshot{Source: source, UUID: uuid, Created: at, Path: "/s/" + at.Format("20060102T150405Z") + "-backup-x"}, Problem: problem, Members: members}
}

func TestTheNewestCopyIsOneWithAllThatIsNestedInIt(t *testing.T) {
	both := []string{"/data", "/data/in"}
	c := Chain{Parents: []string{"1", "3"}, Copies: []agent.Copy{
		copyOf("/data", "1", 1, "", both...), copyOf("/data/in", "2", 1, "", both...), copyOf("/database", "3", 2, "changed"),
		copyOf("/data", "4", 2, "", "/data", "/database"), copyOf("/data", "5", 3, "", both...), copyOf("/data/in", "6", 3, "changed", both...),
		copyOf("/data", "7", 4, "", both...),
	}}
	for subvolume, want := range map[string]string{"/data": "4", "/data/in": "2", "/database": "", "/": ""} {
		got := ""
		if last := c.newest(subvolume); last != nil {
			got = last.UUID
		}
		if got != want {
			t.Errorf("%s: %q, want %q", subvolume, got, want)
		}
	}
	if p := c.parent(agent.Snapshot{Source: "/data"}); p.UUID != "1" {
		t.Errorf("the parent is %q: both ends have 1 alone", p.UUID)
	}
	if p := c.parent(agent.Snapshot{Source: "/data", FSID: "another disk"}); p.UUID != "" {
		t.Errorf("a parent on another file system: %q", p.UUID)
	}
}

// ends are a host and its backup host, which keeps no more of what it receives
// than its name.
type ends struct {
	r     *phases.Run
	vault *Vault
	set   []agent.Snapshot
	has   []agent.Copy
	fails error // of the backup host
}

func newEnds(t *testing.T, set ...agent.Snapshot) *ends {
	e := &ends{set: set}
	h1, vault := phasetest.Make(t, "h1"), phasetest.Make(t, "vault")
	h1.Handle(agent.OpBackup, func(json.RawMessage) (any, error) { return e.set, nil })
	h1.Handle(agent.OpSnapshots, func(json.RawMessage) (any, error) { return e.set, nil })
	h1.Handle(agent.OpCopied, func(json.RawMessage) (any, error) { return []agent.Deleted{}, nil })
	vault.Handle(agent.OpCopies, func(json.RawMessage) (any, error) { return e.has, e.fails })
	reached := map[string]*hosttest.Fake{}
	for _, m := range []*phasetest.Machine{h1, vault} {
		f := hosttest.New(t, m.Fake.Name())
		f.On(hosttest.Prefix("sh", "-s")).Out("deployer-facts=1\nuname=6.6 x86_64\nuser=root\nuid=0\nlauncher=1\nend=1\n")
		f.On(hosttest.Prefix(agent.LauncherPath, "run", "cafe", "send")).Out("stream")
		f.On(hosttest.Prefix(agent.LauncherPath, "run", "cafe", "receive")).Do(e.receive)
		f.On(hosttest.Prefix(agent.LauncherPath, "run")).Do(m.Serve)
		reached[f.Name()] = f
	}
	e.r, _ = phasetest.Run(h1)
	e.r.Dial = func(_ context.Context, h *runbooks.Host) (host.Host, error) { return reached[h.Name], nil }
	e.r.Project.Backup = &runbooks.BackupTo{OffHost: &runbooks.OffHost{Address: "vault", Path: "/srv", Subvolumes: []string{"/"}}}
	var err error
	if e.vault, err = Open(t.Context(), e.r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.vault.Drop)
	return e
}

func (e *ends) receive(cmd host.Command, in io.Reader, out io.Writer) host.Result {
	var args agent.ReceiveArgs
	_ = json.Unmarshal([]byte(cmd.Args[4]), &args)
	_, _ = io.Copy(io.Discard, in)
	e.has = append(e.has, agent.Copy{Snapshot: args.Snapshot, Members: args.Members})
	_, _ = io.WriteString(out, "{\"result\":{}}\n")
	return host.Result{}
}

// / went first, since it has as many slashes, and nobody missed /srv2.
func TestASendThatWasCutShortIsNoCompleteCopyOfWhatItIsNestedIn(t *testing.T) {
	var set []agent.Snapshot
	for _, source := range []string{"/", "/srv", "/srv2", "/srv/in"} {
		set = append(set, agent.Snapshot{Source: source, UUID: source, ReadOnly: true, Path: "/s/20260102T150405Z-backup-x"})
	}
	e := newEnds(t, set...)
	if _, err := e.vault.Send(t.Context(), e.r, e.r.Lanes[0], func(string) {}); err != nil {
		t.Fatal(err)
	}
	all := e.has
	var order []string
	for _, c := range all {
		order = append(order, c.Source)
	}
	if want := []string{"/srv2", "/srv/in", "/srv", "/"}; !slices.Equal(order, want) {
		t.Errorf("sent as %q, want %q", order, want)
	}
	for i := range all {
		e.has = slices.Delete(slices.Clone(all), i, i+1)
		c, err := e.vault.Verify(t.Context(), e.r, e.r.Lanes[0])
		if err != nil || len(c.Wrong) != 1 || c.Wrong[0].What != "there is no complete copy of /" {
			t.Errorf("without %s: %v %+v", all[i].Source, err, c.Wrong)
		}
	}
	e.has = all
	if c, err := e.vault.Verify(t.Context(), e.r, e.r.Lanes[0]); err != nil || len(c.Wrong) > 0 {
		t.Errorf("%v %+v", err, c.Wrong)
	}
}

// The folder was missing on the backup host, and the line that makes it was
// hinted at as if for the host that is copied.
func TestWhatTheBackupHostLacksIsSaidOfIt(t *testing.T) {
	e := newEnds(t)
	e.fails = &agent.Error{Code: "not-found", Message: "there is no folder /srv", Hint: []string{"btrfs subvolume create '/s x'", "# nothing to type"}}
	_, err := e.vault.Send(t.Context(), e.r, e.r.Lanes[0], func(string) {})
	f := phases.AsFailure(phases.At("h1", err))
	if want := []string{"ssh vault 'btrfs subvolume create '\\''/s x'\\'''", "# nothing to type"}; f.Error() != "on the backup host vault: there is no folder /srv" || !slices.Equal(f.Hint, want) || f.Exit != phases.ExitPrecondition {
		t.Errorf("%v, %q", f, f.Hint)
	}
}

// The snapshot was said to be missing, whose copy was.
func TestVerifyTellsWhichEndOfTheChainIsMissing(t *testing.T) {
	here := agent.Snapshot{Source: "/", UUID: "new", Run: backupRun, ReadOnly: true, Path: "/s/new"}
	old := agent.Copy{Snapshot: agent.Snapshot{Source: "/", UUID: "old", Path: "/s/20260102T150405Z-backup-x"}}
	for _, c := range []struct {
		set  []agent.Snapshot
		want string
	}{{[]agent.Snapshot{here}, "the copy of / that was made last (/s/new) is not on the backup host any more"}, {nil, "the snapshot of / that was copied last is not on h1 any more"}} {
		e := newEnds(t, c.set...)
		e.has = []agent.Copy{old}
		chain, err := e.vault.Verify(t.Context(), e.r, e.r.Lanes[0])
		if err != nil || len(chain.Wrong) != 1 || chain.Wrong[0].What != c.want+": the next copy is a full one" {
			t.Errorf("%v %+v", err, chain.Wrong)
		}
	}
}

func TestVerifyOfTheBackupHostDoesNotHintAtASendThatIsRefused(t *testing.T) {
	e := newEnds(t)
	l := e.r.Lanes[0]
	l.Conf.Address = "vault"
	chain, err := e.vault.Verify(t.Context(), e.r, l)
	if err != nil || len(chain.Wrong) != 1 || !strings.HasPrefix(chain.Wrong[0].Hint[0], "# h1 is the backup host itself") {
		t.Errorf("%v %+v", err, chain.Wrong)
	}
}

// The shell there split "X edited", and X was deleted: the good copy.
func TestTheLineThatDeletesABadCopyDeletesNothingElse(t *testing.T) {
	e, bin := newEnds(t), t.TempDir()
	for name, script := range map[string]string{"ssh": "shift; exec bash -c \"$*\"", "btrfs": "printf '%s|' \"$@\""} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/usr/bin/env bash\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x", "x edited", "x$(touch y)`touch y`", `x'"!\`, "x\ny", "x # y; z"} {
		for do, uuid := range map[string]string{"delete": "1", "show": ""} {
			e.has = []agent.Copy{{Snapshot: agent.Snapshot{UUID: uuid}, At: "/srv/h1/" + name, Problem: "changed"}}
			c, err := e.vault.Verify(t.Context(), e.r, e.r.Lanes[0])
			if err != nil {
				t.Fatal(err)
			}
			line := c.Wrong[0].Hint[0]
			cmd := exec.Command("bash", "-c", line)
			cmd.Env, cmd.Dir = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")), t.TempDir()
			out, err := cmd.Output()
			left, _ := os.ReadDir(cmd.Dir)
			if want := "subvolume|" + do + "|" + e.has[0].At + "|"; err != nil || string(out) != want || len(left) > 0 {
				t.Errorf("%s: %q, want %q (%v, %v)", line, out, want, err, left)
			}
		}
	}
}

package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// twoHosts are one with subvolumes, and a backup host with a Btrfs of its own.
type twoHosts struct {
	*host
	far   *host
	taken int
}

func newTwoHosts(t *testing.T, names ...string) *twoHosts {
	return &twoHosts{host: disk(t, append(names, "snaps")...), far: disk(t, "srv")}
}

// take takes a set, a second after the one before.
func (h *twoHosts) take(paths ...string) []Snapshot {
	h.t.Helper()
	h.taken++
	list, err := h.backup(h.t.Context(), SnapshotArgs{Dir: "/disk/snaps", Stamp: fmt.Sprintf("20260102T0304%02dZ", h.taken), Paths: paths})
	must(h.t, err)
	return list
}

// verb starts an end of a copy as a process.
func (h *host) verb(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], append([]string{"as-agent"}, args...)...)
	c.Env = append(os.Environ(), "TEST_PREFIX="+h.dir)
	return c
}

func text(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

// stream gives what the source sends.
func (h *twoHosts) stream(c Snapshot, parent string) []byte {
	h.t.Helper()
	out, err := h.verb("send", text(SendArgs{FSID: c.FSID, UUID: c.UUID, Parent: parent})).Output()
	must(h.t, err)
	return out
}

// arrive lets the backup host receive what comes from a reader.
func (h *twoHosts) arrive(c Snapshot, from io.Reader) (got Copy, err error) {
	h.t.Helper()
	cmd := h.far.verb("receive", text(ReceiveArgs{Snapshot: c, Path: "/disk/srv", Host: "web"}))
	cmd.Stdin, cmd.Stderr = from, os.Stderr
	out, err := cmd.Output()
	must(h.t, err)
	var res Response
	must(h.t, json.Unmarshal(out, &res))
	return got, unpack("receive", res, &got)
}

func (h *twoHosts) copy(c Snapshot, parent string) int {
	h.t.Helper()
	stream := h.stream(c, parent)
	_, err := h.arrive(c, bytes.NewReader(stream))
	must(h.t, err)
	_, err = h.copied(h.t.Context(), c)
	must(h.t, err)
	return len(stream)
}

// has wants as many copies, the last of which are complete or not for a reason.
func (h *twoHosts) has(n int, problems ...string) []Copy {
	h.t.Helper()
	list, err := h.far.copies(h.t.Context(), CopiesArgs{Path: "/disk/srv", Host: "web"})
	must(h.t, err)
	if len(list) != n {
		h.t.Fatalf("there are %d copies, want %d: %+v", len(list), n, list)
	}
	for i, want := range problems {
		if got := list[n-len(problems)+i].Problem; !strings.Contains(got, want) || want == "" && got != "" {
			h.t.Errorf("%q, want %q", got, want)
		}
	}
	return list
}

// from is where the next copy would start: complete there, and here as it was.
func (h *twoHosts) from(want ...string) {
	h.t.Helper()
	list, err := h.far.copies(h.t.Context(), CopiesArgs{Path: "/disk/srv", Host: "web"})
	must(h.t, err)
	here, err := h.snapshots(h.t.Context(), DiscoverArgs{Paths: []string{"/disk"}})
	must(h.t, err)
	var got []string
	for _, c := range list {
		for _, s := range here {
			if c.Problem == "" && s.UUID == c.UUID && s.ReadOnly && s.Changed == c.Changed {
				got = append(got, c.UUID)
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Errorf("parents are %v, want %v", got, want)
	}
}

// tamper changes what is read-only, by the way that no tool forbids.
func tamper(t *testing.T, at string) {
	t.Helper()
	flag := func(value uint64) {
		f, err := btrfs.Open(at)
		must(t, err)
		defer f.Close()
		const setFlags = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS: only tests ever call it
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), setFlags, uintptr(unsafe.Pointer(&value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	flag(0)
	must(t, os.WriteFile(at+"/f", []byte("tampered"), 0o600))
	flag(2)
}

func TestOnlyWhatChangedIsCopiedAndHoldsMoveOn(t *testing.T) {
	h := newTwoHosts(t, "a", "a/in side")
	h.file("disk/a/f", strings.Repeat("x", 4<<20))
	h.file("disk/a/in side/f", "nested")
	first := h.take("/disk/a")
	h.from()
	if n := h.copy(first[1], "") + h.copy(first[0], ""); n < 4<<20 {
		t.Errorf("a full copy of %d bytes", n)
	}
	h.has(2, "", "")
	h.from(first[0].UUID, first[1].UUID)
	refused, err := h.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: []Snapshot{first[0]}})
	if err != nil || refused[0].State != "refused" || !strings.Contains(refused[0].Why, "held by backup") {
		t.Errorf("%v %+v", err, refused)
	}
	h.file("disk/a/g", "new")
	second := h.take("/disk/a")
	if n := h.copy(second[1], first[1].UUID) + h.copy(second[0], first[0].UUID); n > 16<<10 {
		t.Errorf("an incremental copy of %d bytes", n)
	}
	last := h.has(4, "", "")[2].At
	if g, _ := os.ReadFile(last + "/g"); string(g) != "new" || filepath.Dir(last) != h.far.path("disk/srv/web") || filepath.Base(last) != filepath.Base(second[0].Path) {
		t.Errorf("%q in %s", g, last)
	}
	h.from(second[0].UUID, second[1].UUID)
	if holds, err := holdsOf(h.state); err != nil || lexists(first[0].Path) || lexists(first[1].Path) || len(holds) != 2 {
		t.Errorf("what was before it is still there: %v %v", err, holds)
	}
	h.take("/disk/a")
	if sets, _ := filepath.Glob(h.path("state/runs/backup/set-*")); len(sets) != 2 {
		t.Errorf("remembered: %q", sets)
	}
}

func TestASubvolumeThatIsNoLongerCopiedIsNotHeldForEver(t *testing.T) {
	h := newTwoHosts(t, "a", "a/in", "b")
	first := h.take("/disk/a", "/disk/b")
	must(t, h.state.hold(HoldArgs{UUID: first[1].UUID, By: "somebody", Reason: "theirs"}))
	h.take("/disk/a")
	holds, err := holdsOf(h.state)
	must(t, err)
	for _, s := range first {
		by := slices.Sorted(maps.Keys(holds[s.UUID]))
		if want := map[string]string{"/disk/a": "[backup]", "/disk/a/in": "[backup]", "/disk/b": "[somebody]"}[s.Source]; fmt.Sprint(by) != want {
			t.Errorf("%s is held by %v, want %s", s.Source, by, want)
		}
	}
}

// A mistyped path had ended the holds of all other chains by the time it was
// refused, and a prune could take the next copies' parents.
func TestABackupThatIsNotTakenLetsNothingGo(t *testing.T) {
	h := newTwoHosts(t, "a")
	parent := h.take("/disk//a/")[0]
	if _, err := h.backup(t.Context(), SnapshotArgs{Dir: "/disk/snaps", Stamp: "20260103T000000Z", Paths: []string{"/disk/typo"}}); err == nil {
		t.Error("it was taken")
	}
	if holds, err := holdsOf(h.state); err != nil || holds[parent.UUID][backupRun] == "" {
		t.Errorf("nothing holds the parent of the next copy: %v %v", holds, err)
	}
}

func TestAParentThatIsGoneOrChangedIsNone(t *testing.T) {
	h := newTwoHosts(t, "a", "b")
	set := h.take("/disk/a", "/disk/b")
	for _, c := range set {
		h.copy(c, "")
	}
	tamper(t, set[0].Path)
	h.from(set[1].UUID)
	h.sh("btrfs -q subvolume delete %q", set[1].Path)
	h.from()
	h.copy(h.take("/disk/a")[0], "")
	h.has(3, "")
}

// Row 35 of what a transfer can leave: a writable part of a subvolume.
func TestACopyThatIsCutShortLeavesNothingInItsPlace(t *testing.T) {
	for name, end := range map[string]func(receive *exec.Cmd, in io.Closer){
		"the stream ends": func(_ *exec.Cmd, in io.Closer) { in.Close() },
		"stopped":         func(r *exec.Cmd, _ io.Closer) { r.Process.Signal(unix.SIGTERM) },
		"killed": func(r *exec.Cmd, in io.Closer) {
			r.Process.Kill()
			in.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTwoHosts(t, "a")
			h.copy(h.take("/disk/a")[0], "")
			h.file("disk/a/f", strings.Repeat("x", 8<<20))
			c := h.take("/disk/a")[0]
			base := h.has(1)[0]
			stream := h.stream(c, base.UUID)
			r := h.far.verb("receive", text(ReceiveArgs{Snapshot: c, Path: "/disk/srv", Host: "web"}))
			var out bytes.Buffer
			r.Stdout = &out
			in, err := r.StdinPipe()
			must(t, err)
			must(t, r.Start())
			_, err = in.Write(stream[:len(stream)/2]) // returns when it is being received
			must(t, err)
			if _, err := h.arrive(c, strings.NewReader("")); err == nil || asError(err).Code != "locked" {
				t.Errorf("a second one at the same time: %v", err)
			}
			h.has(1, "")
			end(r, in)
			r.Wait()
			if name == "killed" {
				h.has(2, "cut short", "")
			} else if h.has(1, ""); !strings.Contains(out.String(), `"error"`) {
				t.Error(out.String())
			}
			h.from(base.UUID)
			_, err = h.arrive(c, bytes.NewReader(stream))
			must(t, err)
			h.has(2, "", "")
			if left, _ := filepath.Glob(h.far.path("disk/srv/web/.deployer/" + receivingName + "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// The sender's death is seen as the end of its stream; the reader's as EPIPE.
func TestASenderEndsWithItsReader(t *testing.T) {
	h := newTwoHosts(t, "a")
	h.file("disk/a/f", strings.Repeat("x", 8<<20))
	c := h.take("/disk/a")[0]
	s := h.verb("send", text(SendArgs{FSID: c.FSID, UUID: c.UUID}))
	var said bytes.Buffer
	s.Stderr = &said
	out, err := s.StdoutPipe()
	must(t, err)
	must(t, s.Start())
	_, err = io.ReadFull(out, make([]byte, 1<<20))
	must(t, err)
	busy, err := h.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: []Snapshot{c}})
	if err != nil || busy[0].State != "refused" {
		t.Errorf("deleted while it is sent: %v %+v", err, busy)
	}
	must(t, h.state.hold(HoldArgs{UUID: c.UUID, By: backupRun}))
	busy, err = h.deleteSnapshots(t.Context(), DeleteArgs{Snapshots: []Snapshot{c}})
	if err != nil || busy[0].State != "refused" || !strings.Contains(busy[0].Why, "uses /snaps") {
		t.Errorf("%v %+v", err, busy)
	}
	dir, err := btrfs.Open(h.path("disk/snaps"))
	must(t, err)
	defer dir.Close()
	if err := btrfs.Destroy(dir, filepath.Base(c.Path)); !errors.Is(err, unix.EPERM) { // row 37
		t.Error(err)
	}
	next := h.take("/disk/a")[0]
	if gone, err := h.copied(t.Context(), next); err != nil || gone[0].State != "refused" {
		t.Errorf("%v %+v", err, gone)
	}
	out.Close()
	if s.Wait() == nil || !strings.Contains(said.String(), "broken pipe") {
		t.Error(said.String())
	}
	if gone, err := h.copied(t.Context(), next); err != nil || gone[0].State == "refused" {
		t.Errorf("%v %+v", err, gone)
	}
}

// Row 36: it still says what it was received from, and receive builds on it.
func TestACopyThatWasMadeWritableIsNoParent(t *testing.T) {
	h := newTwoHosts(t, "a")
	h.file("disk/a/f", "f")
	first := h.take("/disk/a")[0]
	h.copy(first, "")
	at := h.has(1, "")[0].At
	tamper(t, at)
	h.has(1, "changed after it was received")
	if info, _ := btrfs.Describe(at); info.Received != first.UUID || !info.ReadOnly {
		t.Error("the kernel forgot what it was received from: the test proves nothing")
	}
	h.from()
	h.copy(h.take("/disk/a")[0], "")
	h.has(2, "changed", "")
	h.far.sh("btrfs property set -f %q ro false", at)
	h.has(2, "can be written", "")
}

func (h *host) sh(format string, args ...any) string { return (&stock{host: h}).sh(format, args...) }

func TestNamesOfCopies(t *testing.T) {
	names := []string{"a b", "-dash", "new\nline", "ünï"}
	h := newTwoHosts(t, names...)
	var paths []string
	for _, n := range names {
		paths = append(paths, "/disk/"+n)
	}
	first := h.take(paths...)
	for _, c := range first {
		h.copy(c, "")
	}
	h.has(4, "", "", "", "")
	for i, c := range h.take(paths...) {
		h.copy(c, first[i].UUID)
	}
	h.has(8, "", "", "", "")
}

func TestACopyThatCannotBeIsRefused(t *testing.T) {
	h := newTwoHosts(t, "a")
	h.file("disk/a/f", strings.Repeat("x", 1<<20))
	c := h.take("/disk/a")[0]
	stream := h.stream(c, "")
	refused := func(code string, args ReceiveArgs) {
		t.Helper()
		_, err := h.far.receiveInto(t.Context(), args)
		isCode(t, err, code)
	}
	refused("not-found", ReceiveArgs{Snapshot: c, Path: "/none", Host: "web"})
	refused("not-btrfs", ReceiveArgs{Snapshot: c, Path: "/etc", Host: "web"})
	refused("invalid", ReceiveArgs{Snapshot: c, Path: "/disk/srv", Host: "../web"})
	other := c
	other.FSID = h.far.fsidOf("/disk")
	refused("invalid", ReceiveArgs{Snapshot: other, Path: "/disk/srv", Host: "web"})
	other = c
	other.UUID = "0"
	if _, err := h.arrive(other, bytes.NewReader(stream)); err == nil || !strings.Contains(err.Error(), "a copy of something else") {
		t.Error(err)
	}
	h.has(0)
	_, err := h.arrive(c, bytes.NewReader(stream))
	must(t, err)
	refused("exists", ReceiveArgs{Snapshot: c, Path: "/disk/srv", Host: "web"})

	for i := range 4 { // no room
		data := make([]byte, 32<<20)
		data[i] = 1
		must(t, os.WriteFile(h.path(fmt.Sprint("disk/a/big", i)), data, 0o600))
	}
	h.far.sh("head -c 150M /dev/urandom > disk/full")
	c = h.take("/disk/a")[0]
	_, err = h.arrive(c, bytes.NewReader(h.stream(c, "")))
	isCode(t, err, "no-space")
	h.has(1, "")
}

func TestASetThatWasCutShortIsDeletedByTheNext(t *testing.T) {
	h := newTwoHosts(t, "a", "b")
	c := h.verb("none")
	c.Args = append(c.Args[:2], "serve")
	c.Env = append(c.Env, "TEST_KILL_AT=snapshot")
	c.Stdin = strings.NewReader(text(Request{ID: 1, Op: OpBackup, Args: json.RawMessage(text(SnapshotArgs{Dir: "/disk/snaps", Stamp: "20260101T000000Z", Paths: []string{"/disk/a", "/disk/b"}}))}) + "\n")
	c.Run()
	left := func() int { l, _ := filepath.Glob(h.path("disk/snaps/20260101*")); return len(l) }
	if left() != 1 {
		t.Fatalf("%d snapshots of the set that was cut short", left())
	}
	h.take("/disk/a")
	if left() != 0 {
		t.Error("it is there still")
	}
}

func TestASendThatIsRefusedLeavesNoSet(t *testing.T) {
	h := disk(t, "a", "in", "snaps")
	h.sh("btrfs -q subvolume snapshot -r disk/a disk/ro; btrfs -q send disk/ro | btrfs -q receive disk/in")
	_, err := h.backup(t.Context(), SnapshotArgs{Dir: "/disk/snaps", Stamp: stamp, Paths: []string{"/disk/a", "/disk/in/ro"}})
	if left, _ := filepath.Glob(h.path("disk/snaps/2*")); err == nil || !strings.Contains(err.Error(), "/disk/in/ro was received as") || len(left) > 0 {
		t.Errorf("%v; left behind: %q", err, left)
	}
}

// lockWatch tells when somebody finds a lock of who takes a set taken.
type lockWatch struct {
	Disk
	waits func()
}

func (d lockWatch) Lock(name string, shared, create bool) (io.Closer, error) {
	c, err := d.Disk.Lock(name, shared, create)
	if errors.Is(err, unix.EWOULDBLOCK) && filepath.Base(name) == pauseLock {
		d.waits()
	}
	return c, err
}

// Two sends at once: the second took the first's set for one that was cut short.
func TestASetThatIsBeingTakenIsNotTidiedAway(t *testing.T) {
	h := newTwoHosts(t, "a", "b")
	waits, ended := make(chan bool), make(chan error, 1)
	o := fakeOptions(h.dir)
	o.Disk = func(dir string) (Disk, error) {
		d, err := openDisk(dir, true)
		return lockWatch{d, sync.OnceFunc(func() { close(waits) })}, err
	}
	h.Moment = func(string) {
		h.Moment = nil
		go func() {
			_, err := newAgent(o).backup(t.Context(), SnapshotArgs{Dir: "/disk/snaps", Stamp: "20260103T000000Z", Paths: []string{"/disk/a"}})
			ended <- err
		}()
		select {
		case <-waits:
		case err := <-ended:
			t.Error("the second did not wait:", err)
			ended <- err
		}
	}
	for _, s := range h.take("/disk/a", "/disk/b") {
		if !lexists(s.Path) {
			t.Errorf("%s is gone", s.Path)
		}
	}
	must(t, <-ended)
}

func TestPartialCopiesBelowAPathLikeAPatternAreFound(t *testing.T) {
	h := disk(t, "srv[1]")
	v, err := h.vault("/disk/srv[1]", "web", true)
	must(t, err)
	defer v.disk.disk.Close()
	h.sh("mkdir %[1]q; btrfs -q subvolume create %[1]q/part", v.own+"/"+receivingName+"1")
	list, err := h.copies(t.Context(), CopiesArgs{Path: "/disk/srv[1]", Host: "web"})
	if err != nil || len(list) != 1 || !list[0].Partial {
		t.Errorf("%v %+v", err, list)
	}
	must(t, v.clean())
	if left, err := v.temps(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestACopyKnowsItsSet(t *testing.T) {
	h := newTwoHosts(t, "a")
	c := h.take("/disk/a")[0]
	cmd := h.far.verb("receive", text(ReceiveArgs{Snapshot: c, Members: []string{"/disk/a", "/disk/b"}, Path: "/disk/srv", Host: "web"}))
	cmd.Stdin = bytes.NewReader(h.stream(c, ""))
	must(t, cmd.Run())
	if got := h.has(1, "")[0].Members; !slices.Equal(got, []string{"/disk/a", "/disk/b"}) {
		t.Errorf("%q", got)
	}
}

func TestHintsNameAFolderWithABlankAsOneWord(t *testing.T) {
	h := newTwoHosts(t, "a b")
	_, err := h.far.copies(t.Context(), CopiesArgs{Path: "/no folder", Host: "web"})
	if err == nil || asError(err).Hint[0] != "btrfs subvolume create '/no folder'" {
		t.Errorf("%+v", err)
	}
	c := h.take("/disk/a b")[0]
	h.copy(c, "")
	tamper(t, h.has(1, "")[0].At) // and so writable, then
	h.far.sh("mv %q 'disk/srv/web/a b'", h.has(1)[0].At)
	_, err = h.far.backup(t.Context(), SnapshotArgs{Dir: "/disk", Stamp: "20260103T000000Z", Paths: []string{"/disk/srv/web/a b"}})
	if err == nil || !strings.HasPrefix(asError(err).Hint[0], "btrfs subvolume snapshot '/disk/srv/web/a b' NEW") {
		t.Errorf("%+v", err)
	}
}

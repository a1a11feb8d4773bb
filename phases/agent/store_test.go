package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func newStore(t *testing.T) *store {
	t.Helper()
	s, err := Options{}.openStore(filepath.Join(t.TempDir(), "state"), true)
	must(t, err)
	return s
}

func TestStateFollowsNoSymlink(t *testing.T) {
	s := newStore(t)
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/secret", []byte("x"), 0o600))
	must(t, os.Symlink(outside, s.dir+"/runs"))
	must(t, os.Symlink(outside+"/secret", s.dir+"/lock"))
	if _, err := s.read("lock"); err == nil {
		t.Error("read through a link")
	}
	if _, err := s.read("runs/secret"); err == nil {
		t.Error("read below a linked folder")
	}
	if err := s.write("runs/r1/recipe.json", []byte("{}")); err == nil {
		t.Error("wrote below a linked folder")
	}
	if _, err := s.read("../state/lock"); err == nil {
		t.Error("left the folder")
	}
	must(t, s.write("lock", []byte("new"))) // replaces the link, does not write through it
	if data, _ := os.ReadFile(outside + "/secret"); string(data) != "x" {
		t.Error("wrote through a link")
	}
}

func TestStateRefusesAFolderOthersCanReach(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	if _, err := (Options{}).openStore(dir, true); err == nil {
		t.Error("a folder of mode 0755 was trusted")
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Chmod(dir, 0o700))
	must(t, os.Symlink(dir, link))
	if _, err := (Options{}).openStore(link, false); err == nil {
		t.Error("a linked folder was trusted")
	}
}

func TestReadsDoNotMakeTheState(t *testing.T) {
	h := newHost(t)
	_, err := h.facts(t.Context(), FactsArgs{})
	must(t, err)
	if exists(h.Root) {
		t.Error("facts made the folder")
	}
}

func TestFileIsOldOrNewForEveryReader(t *testing.T) {
	s := newStore(t)
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	must(t, s.write("f", contents[0]))
	var writers sync.WaitGroup
	var done atomic.Bool
	for i := range 4 {
		writers.Go(func() {
			for range 25 {
				if err := s.write("f", contents[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); done.Store(true) }()
	for !done.Load() {
		data, err := s.read("f")
		if err != nil || !bytes.Equal(data, contents[0]) && !bytes.Equal(data, contents[1]) {
			t.Fatalf("read %d bytes: %v", len(data), err)
		}
	}
	if names, _ := s.names("."); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestCreateHasExactlyOneWinner(t *testing.T) {
	s := newStore(t)
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			switch err := s.create("decision", []byte{byte(i)}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d winners", won.Load())
	}
}

func TestTornTemporaryFileIsNoState(t *testing.T) {
	h := newHost(t)
	_, err := h.recipePut(t.Context(), Recipe{Run: "r1"})
	must(t, err)
	must(t, os.WriteFile(h.Root+"/runs/r1/.new.123", []byte(`{"run":"to`), 0o600)) // a write that a power cut ended
	r, err := h.recipeGet(t.Context(), RunRef{"r1"})
	if err != nil || r.Run != "r1" {
		t.Error(r, err)
	}
}

func TestAppendNeverGluesToATornLine(t *testing.T) {
	s := newStore(t)
	must(t, s.append("runs/r1/journal.jsonl", []byte("a\n")))
	must(t, s.append("runs/r1/journal.jsonl", []byte("b\nto")))
	must(t, s.append("runs/r1/journal.jsonl", []byte("c\n")))
	if data, err := s.read("runs/r1/journal.jsonl"); err != nil || string(data) != "a\nb\nto\nc\n" {
		t.Errorf("%q %v", data, err)
	}
}

func TestStateRefusesAFileOthersCouldHaveWritten(t *testing.T) {
	s := newStore(t)
	must(t, s.write("holder.json", []byte("{}")))
	must(t, os.Chmod(s.dir+"/holder.json", 0o620))
	if _, err := s.read("holder.json"); err == nil {
		t.Error("a file that others can write was read")
	}
	if err := s.append("holder.json", []byte("x\n")); err == nil {
		t.Error("a file that others can write was added to")
	}
	must(t, os.Chmod(s.dir+"/holder.json", 0o600))
	must(t, os.Chown(s.dir+"/holder.json", 1, 1))
	if _, err := s.read("holder.json"); err == nil && os.Geteuid() == 0 {
		t.Error("somebody else's file was read")
	}
	must(t, unix.Mkfifo(s.dir+"/fifo", 0o600))
	if _, err := s.read("fifo"); err == nil {
		t.Error("a FIFO was read")
	}
}

func TestSharedLockKeepsTheExclusiveOneOut(t *testing.T) {
	s := newStore(t)
	one, err := s.lockShared("gate", true)
	must(t, err)
	two, err := s.lockShared("gate", false)
	must(t, err)
	if _, err := s.lock("gate", false); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		c, err := s.lock("gate", true)
		if err == nil {
			defer c.Close()
		}
		got <- err
	}()
	one.Close()
	two.Close()
	must(t, <-got)
	if s.held("gate") || s.held("none") || s.exists("none") {
		t.Error("nobody holds it")
	}
}

func TestRemoveIsFineWhenThereIsNothing(t *testing.T) {
	s := newStore(t)
	must(t, s.write("runs/r1/a", nil))
	must(t, s.remove("runs/r1/a"))
	must(t, s.remove("runs/r1/a"))
	must(t, s.remove("nowhere/a"))
	if s.exists("runs/r1/a") {
		t.Error("it is still there")
	}
}

// counted counts what is made durable.
type counted struct {
	Disk
	dirs []string
}

func (c *counted) SyncDir(dir string) error {
	c.dirs = append(c.dirs, dir)
	return c.Disk.SyncDir(dir)
}

// Whoever linked a name may have been killed before it was durable: the one that
// finds it there must not build on it.
func TestWhatIsFoundIsDurableAsWell(t *testing.T) {
	s := newStore(t)
	must(t, os.MkdirAll(s.dir+"/runs/r1", 0o700))
	must(t, os.WriteFile(s.dir+"/runs/r1/decision", nil, 0o600))
	c := &counted{Disk: s.disk}
	s.disk = c
	if err := s.create("runs/r1/decision", nil); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	must(t, s.append("runs/r1/decision", []byte("x\n")))
	if want := []string{".", "runs", "runs/r1", "runs/r1"}; !slices.Equal(c.dirs, want) {
		t.Errorf("%q, want %q", c.dirs, want)
	}
}

package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func newStore(t *testing.T) *store {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "state"), true)
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
	if _, err := openStore(dir, true); err == nil {
		t.Error("a folder of mode 0755 was trusted")
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Chmod(dir, 0o700))
	must(t, os.Symlink(dir, link))
	if _, err := openStore(link, false); err == nil {
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

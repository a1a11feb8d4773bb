package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Store is where the runs of a project are kept on this machine.
type Store struct {
	Path string
}

// OpenStore opens the store of a project, and makes it where it is missing:
// $XDG_STATE_HOME/deployer/<project>, by default below ~/.local/state.
func OpenStore(project string) (*Store, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // as the XDG specification has it
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("cannot open the store: %w; set XDG_STATE_HOME", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	path := filepath.Join(base, "deployer", plainName(project))
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	if err := os.Chmod(path, dirMode); err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	return &Store{Path: path}, nil
}

// ProjectKey names the project in dir: its base name, and 8 hex digits of the
// absolute path that keep projects of one name apart.
func ProjectKey(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return plainName(filepath.Base(dir)) + "-" + hash([]byte(dir), 8)
}

// NewRun makes the folder of a new run. Its id sorts after all before it.
func (s *Store) NewRun() (*RunDir, error) {
	for {
		d := s.dir(newID(now()))
		err := d.make()
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot make a new run: %w", err)
		}
		return d, nil
	}
}

func (s *Store) dir(id string) *RunDir { return &RunDir{ID: id, Path: filepath.Join(s.Path, id)} }

// ids returns the ids of all runs, newest first.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot list runs: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() && isID(entry.Name()) {
			ids = append(ids, entry.Name())
		}
	}
	slices.Reverse(ids)
	return ids, nil
}

func isID(name string) bool {
	return len(name) == idLen && strings.Trim(name, idAlphabet) == ""
}

// Find returns the run whose id begins with prefix, or the newest for "last".
func (s *Store) Find(prefix string) (*RunDir, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, errors.New("cannot find a run: there is none yet; start one with: deployer run")
	}
	if prefix == "last" {
		return s.dir(ids[0]), nil
	}
	prefix = strings.ToLower(prefix)
	found := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, prefix) })
	switch len(found) {
	case 1:
		return s.dir(found[0]), nil
	case 0:
		return nil, fmt.Errorf("cannot find run %q: the newest are %s; see all with: deployer history", prefix, few(ids))
	}
	return nil, fmt.Errorf("cannot tell which run %q is: %s; type more of it", prefix, few(found))
}

func few(ids []string) string {
	if len(ids) > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:5], ", "), len(ids)-5)
	}
	return strings.Join(ids, ", ")
}

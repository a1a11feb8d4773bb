package state

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Store is where the runs of a project are kept on this machine.
type Store struct {
	Path string
}

// RunDir is the folder of a run: all that is known of it.
type RunDir struct {
	ID   string
	Path string
}

// PlanPath is the plan that the run executes.
func (d *RunDir) PlanPath() string { return filepath.Join(d.Path, "plan.json") }

// LogPath is the diagnostic log.
func (d *RunDir) LogPath() string { return filepath.Join(d.Path, "log.jsonl") }

// ReportPath is the report, once the run is over.
func (d *RunDir) ReportPath() string { return filepath.Join(d.Path, "report.md") }

// OutputDir holds remote output and unit logs: never in the journal.
func (d *RunDir) OutputDir() string { return filepath.Join(d.Path, "output") }

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

var notPlain = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// plainName keeps letters, digits, dot, dash and underscore, and no dot first.
func plainName(name string) string {
	plain := strings.TrimLeft(notPlain.ReplaceAllString(name, "-"), ".-")
	if plain == "" {
		return "unnamed"
	}
	return plain
}

var (
	idCoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
	isID     = regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{18}$`).MatchString
	lastID   atomic.Int64
)

// NewID names what is done under a host's lock and is no run.
func NewID() string { return newID(now()) }

// newID is 48 bits of milliseconds and 40 random ones: ids sort as their times
// do, and after all that this process made before.
func newID(t time.Time) string {
	var milli int64
	for done := false; !done; {
		last := lastID.Load()
		milli = max(t.UnixMilli(), last+1)
		done = lastID.CompareAndSwap(last, milli)
	}
	var b [13]byte
	binary.BigEndian.PutUint64(b[:], uint64(milli))
	rand.Read(b[8:])
	return idCoding.EncodeToString(b[2:])
}

// NewRun makes the folder of a new run.
func (s *Store) NewRun() (*RunDir, error) {
	d := s.dir(newID(now()))
	if err := d.make(); err != nil {
		return nil, fmt.Errorf("cannot make a new run: %w", err)
	}
	return d, nil
}

func (d *RunDir) make() error {
	for _, dir := range []string{d.Path, d.OutputDir(), filepath.Join(d.Path, "files")} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dir(id string) *RunDir { return &RunDir{ID: id, Path: filepath.Join(s.Path, id)} }

// Runs are all runs, newest first.
func (s *Store) Runs() ([]*RunDir, error) {
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot list runs: %w", err)
	}
	var runs []*RunDir
	for _, entry := range slices.Backward(entries) {
		if entry.IsDir() && isID(entry.Name()) {
			runs = append(runs, s.dir(entry.Name()))
		}
	}
	return runs, nil
}

// Find returns the run whose id begins with prefix, or the newest for "last".
func (s *Store) Find(prefix string) (*RunDir, error) {
	runs, err := s.Runs()
	if err != nil {
		return nil, err
	}
	if len(runs) == 0 {
		return nil, errors.New("cannot find a run: there is none yet; start one with: deployer run")
	}
	if prefix == "last" {
		return runs[0], nil
	}
	var found []*RunDir
	for _, d := range runs {
		if strings.HasPrefix(d.ID, strings.ToLower(prefix)) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("cannot find run %q: the newest are %s; see all with: deployer history", prefix, few(runs))
	}
	return nil, fmt.Errorf("cannot tell which run %q is: %s; type more of it", prefix, few(found))
}

func few(runs []*RunDir) string {
	var ids []string
	for _, d := range runs[:min(len(runs), 5)] {
		ids = append(ids, d.ID)
	}
	return strings.Join(ids, ", ")
}

// LastGood returns the newest deploy that succeeded and that no rollback has
// undone, or nil.
func (s *Store) LastGood() (*RunDir, error) {
	runs, err := s.Runs()
	undone := map[string]bool{}
	for _, d := range runs {
		recs, _, err := Read(d.Path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		switch run := Fold(recs); {
		case run.Type == "rollback" && (run.Status == Succeeded || run.Status == RolledBack):
			undone[run.Undoes] = true
		case run.Type == "deploy" && run.Status == Succeeded && !undone[d.ID]:
			return d, nil
		}
	}
	return nil, err
}

package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// RunDir is the folder of a run: all that is known of it, readable by its
// owner only.
type RunDir struct {
	ID   string
	Path string
}

// PlanPath is the plan that the run executes.
func (d *RunDir) PlanPath() string { return filepath.Join(d.Path, "plan.json") }

// JournalPath is the journal, for people; Create, Open and Read take Path.
func (d *RunDir) JournalPath() string { return filepath.Join(d.Path, journalName) }

// LogPath is the diagnostic log.
func (d *RunDir) LogPath() string { return filepath.Join(d.Path, "log.jsonl") }

// ReportPath is the report, once the run is over.
func (d *RunDir) ReportPath() string { return filepath.Join(d.Path, "report.md") }

// OutputDir holds remote output and unit logs: never in the journal.
func (d *RunDir) OutputDir() string { return filepath.Join(d.Path, "output") }

// FilesDir holds files that were backed up from hosts.
func (d *RunDir) FilesDir() string { return filepath.Join(d.Path, "files") }

// Output opens a file of OutputDir to append to; name is made a safe one.
func (d *RunDir) Output(name string) (*os.File, error) {
	path := filepath.Join(d.OutputDir(), plainName(name))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("cannot keep output: %w", err)
	}
	return f, nil
}

// make makes the folders; it fails where the run is there already.
func (d *RunDir) make() error {
	if err := os.Mkdir(d.Path, dirMode); err != nil {
		return err
	}
	for _, dir := range []string{d.OutputDir(), d.FilesDir()} {
		if err := os.Mkdir(dir, dirMode); err != nil {
			return err
		}
	}
	if err := syncDir(d.Path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.Path))
}

// plainName keeps letters, digits, dot, dash and underscore, and no dot first.
func plainName(name string) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-", r):
			return r
		}
		return '-'
	}, name)
	if plain = strings.TrimLeft(plain, ".-"); plain == "" {
		return "unnamed"
	}
	return plain
}

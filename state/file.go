package state

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// now is the clock of this package; tests of others set Record.Time instead.
var now = time.Now

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// WriteFile replaces path with data, readable by its owner only: afterwards,
// also after a power cut, path holds either all of the old or all of the new.
func WriteFile(path string, data []byte) error {
	if err := replace(path, data); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// replace does not use renameio.WriteFile, which keeps the mode of the old file.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(fileMode))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDir(dir)
}

// publish makes a file that comes to its name whole, once, and filled: it fails
// where there is one already, so that of several processes one succeeds.
func publish(path string, fill func(*os.File) error) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	err = fill(f)
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// numbered is a file of one epoch.
type numbered struct {
	epoch uint64
	path  string
}

// Before there were epochs, a run had one lease and one segment.
var (
	leaseName   = regexp.MustCompile(`^lease(?:-([1-9][0-9]*))?$`)
	segmentName = regexp.MustCompile(`^journal(?:-([1-9][0-9]*))?\.jsonl$`)
)

// byEpoch lists the files in dir that are named so, oldest first.
func byEpoch(dir string, name *regexp.Regexp) (files []numbered, err error) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if m := name.FindStringSubmatch(entry.Name()); m != nil {
			epoch, _ := strconv.ParseUint(cmp.Or(m[1], "1"), 10, 64)
			files = append(files, numbered{epoch, filepath.Join(dir, entry.Name())})
		}
	}
	slices.SortFunc(files, func(a, b numbered) int { return cmp.Compare(a.epoch, b.epoch) })
	return files, err
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error { return syncFile(dir) }

// syncFile makes durable what anybody wrote to a file.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// makeDir makes dir and what leads to it, and the new names durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// isFull tells whether err means that there is no room left.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

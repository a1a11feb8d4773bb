package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	ballastName = "ballast"
	ballastSize = 1 << 20
)

// layBallast keeps room for a restore. The bytes are random, so that no file
// system compresses, shares or leaves them out.
func layBallast(dir string) error {
	data := make([]byte, ballastSize)
	rand.Read(data)
	err := writeNew(filepath.Join(dir, ballastName), data)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("no room for the 1 MiB that is kept for a restore: %w; free some space for %s", err, dir)
	}
	return nil
}

// freeBallast gives the room back, and tells whether there was any.
func (j *Journal) freeBallast() bool {
	j.full = true
	if err := os.Remove(filepath.Join(j.dir, ballastName)); err != nil {
		return false
	}
	_ = syncDir(j.dir) // some file systems free only with the next commit
	return true
}

// relayBallast is for a run that goes on: without room it is full again.
func (j *Journal) relayBallast() {
	j.full = layBallast(j.dir) != nil || j.full
}

package view

import (
	"bytes"
	"testing"
	"time"
)

// A run that ended closed the live line, and the command closed it once more:
// that ended a rollback's last words in a panic.
func TestALiveLineThatIsClosedTwiceDoesNotPanic(t *testing.T) {
	h := NewHuman(&Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, TTY: true, Width: 80}, time.UTC)
	h.Close()
	h.Close()
}

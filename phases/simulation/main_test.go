package simulation

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain starts package signal's goroutine, which must not be born in a bubble.
func TestMain(m *testing.M) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2)
	os.Exit(m.Run())
}

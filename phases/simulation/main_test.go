package simulation

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"testing"
)

// TestMain starts package signal's goroutine, which must not be born in a bubble.
func TestMain(m *testing.M) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2)
	debug.SetGCPercent(800)
	os.Stderr, _ = os.Open(os.DevNull) // what agents would say to systemd
	os.Exit(m.Run())
}

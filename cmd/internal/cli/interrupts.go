package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// interrupts turns signals into what they mean: once, stop after this step and
// go back; twice, go back now; three times, leave as it is.
func interrupts(ctx context.Context, s *view.Streams) (context.Context, <-chan struct{}, func()) {
	ctx, now := context.WithCancel(ctx)
	stop := make(chan struct{})
	sig := make(chan os.Signal, 3)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	var once sync.Once
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case <-sig:
			}
			switch n {
			case 1:
				s.Notef("\nstopping after this step, then every host goes back; once more: go back now\n")
				close(stop)
			case 2:
				s.Notef("\ngoing back now; once more: leave, with hosts as they are\n")
				now()
			default:
				s.Notef("\nleft; see where things stand with: deployer status\n")
				os.Exit(phases.ExitInterrupted)
			}
		}
	}()
	return ctx, stop, func() {
		once.Do(func() { close(done); signal.Stop(sig); now() })
	}
}

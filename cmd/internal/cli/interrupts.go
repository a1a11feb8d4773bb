package cli

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// signals turns Ctrl-C into what it means now. While a run is planned and asked
// about, nothing is changed yet: the first one ends it. Later: once, stop after
// this step, to be resumed; twice, go back now; three times, leave as it is. A
// rollback goes on whatever happens, until the third.
type signals struct {
	ctx  context.Context // over: do not go on, go back now
	stop chan struct{}   // closed: stop after this step

	view    *view.Streams
	safe    string // what is, when it ends before hosts are changed
	cancel  context.CancelFunc
	done    chan struct{}
	once    sync.Once
	meaning atomic.Pointer[[]reaction]
}

// reaction is what one signal more does.
type reaction struct {
	say string
	do  func(*signals)
}

func goBackNow(s *signals) { s.cancel() }
func leave(*signals)       { os.Exit(phases.ExitInterrupted) }
func nothing(*signals)     {}

var (
	last      = reaction{"left, with hosts as they are. Go on with: deployer resume; go back with: deployer abort", leave}
	asPlanned = []reaction{{"stopping; nothing was changed on any host", goBackNow}, last}
	asCopying = []reaction{{"stopping; systems and data stay as they are", goBackNow}, last}
	asTakenUp = []reaction{{"stopping; the run stays as it was", goBackNow}, last}
	asRun     = []reaction{
		{"stopping after this step; the run can be resumed, or is done if it only monitors. Once more: go back now", func(s *signals) { close(s.stop) }},
		{"going back now; once more: leave, with hosts as they are", goBackNow},
		last,
	}
	asRollback = []reaction{
		{"a rollback goes on to its end; twice more: leave, with hosts as they are", nothing},
		{"still going back; once more: leave, with hosts as they are", nothing},
		last,
	}
)

func interrupts(ctx context.Context, v *view.Streams) *signals {
	s := &signals{view: v, stop: make(chan struct{}), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.meaning.Store(&asPlanned)
	sig := make(chan os.Signal, 3)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // a reader that went away is no reason to leave hosts half done
	go s.loop(sig)
	return s
}

func (s *signals) loop(sig chan os.Signal) {
	defer signal.Stop(sig)
	before, n := s.meaning.Load(), 0
	for {
		select {
		case <-s.done:
			return
		case <-sig:
		}
		now := s.meaning.Load()
		if now != before {
			before, n = now, 0
		}
		r := (*now)[min(n, len(*now)-1)]
		n++
		s.view.Notef("\n%s\n", r.say)
		r.do(s)
	}
}

// begin says that hosts are changed from here on.
func (s *signals) begin(as *[]reaction) { s.meaning.Store(as) }

// ended is the error of what was stopped before hosts were changed, whatever
// became of it; else err.
func (s *signals) ended(err error) error {
	if s.ctx.Err() == nil {
		return err
	}
	return &phases.Failure{Exit: phases.ExitInterrupted, Err: errors.New("stopped by the operator"), Safe: cmp.Or(s.safe, "nothing was changed on any host")}
}

func (s *signals) release() { s.once.Do(func() { close(s.done); s.cancel() }) }

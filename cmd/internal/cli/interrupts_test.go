package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// child is the process that real signals are sent to: it says on stdout what
// becomes of it, as a command that plans, asks, runs or rolls back would see it.
func child(mode string) {
	s := interrupts(context.Background(), &view.Streams{Out: os.Stdout, Err: os.Stderr, Width: 80})
	say := func(t string) { _, _ = io.WriteString(os.Stdout, t+"\n") }
	switch mode {
	case "plan":
	case "run":
		s.begin(&asRun)
	case "rollback":
		s.begin(&asRollback)
	case "late": // one that was said while planning does not count
		s.begin(&asRun)
		s.begin(&asRollback)
	}
	say("ready")
	stop := s.stop
	for {
		select {
		case <-stop:
			say("stop")
			stop = nil
		case <-s.ctx.Done():
			if mode == "plan" {
				say("over: " + s.ended(nil).Error())
			} else {
				say("now")
			}
			<-make(chan bool) // a step that does not heed it
		case <-time.After(20 * time.Second):
			os.Exit(1)
		}
	}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv("DEPLOYER_TEST_CHILD"); mode != "" {
		child(mode)
	}
	os.Exit(m.Run())
}

type process struct {
	*testing.T
	cmd *exec.Cmd
	out *bufio.Scanner
	err bytes.Buffer
}

func startChild(t *testing.T, mode string) *process {
	p := &process{T: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), "DEPLOYER_TEST_CHILD="+mode)
	p.cmd.Stderr = &p.err
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.out = bufio.NewScanner(out)
	p.says("ready")
	return p
}

func (p *process) says(want string) {
	p.Helper()
	if p.out.Scan(); p.out.Text() != want {
		p.Fatalf("says %q, not %q", p.out.Text(), want)
	}
}

func (p *process) signal(s os.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
}

func (p *process) left(words ...string) {
	p.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != phases.ExitInterrupted {
		p.Errorf("ended with %v", err)
	}
	for _, w := range append(words, "deployer resume") {
		if !strings.Contains(p.err.String(), w) {
			p.Errorf("does not say %q:\n%s", w, &p.err)
		}
	}
}

func TestInterruptsOfARun(t *testing.T) {
	t.Parallel()
	p := startChild(t, "run")
	p.signal(os.Interrupt)
	p.says("stop")
	p.signal(syscall.SIGTERM)
	p.says("now")
	p.signal(os.Interrupt)
	p.left("stopping after this step", "going back now", "hosts as they are")
}

// TestInterruptsOfAPlan: the first one ends it, since nothing is changed yet.
func TestInterruptsOfAPlan(t *testing.T) {
	t.Parallel()
	p := startChild(t, "plan")
	p.signal(os.Interrupt)
	p.says("over: stopped by the operator")
	p.signal(os.Interrupt)
	p.left("nothing was changed on any host")
	if strings.Contains(p.err.String(), "goes back") {
		t.Errorf("says %s", &p.err)
	}
}

// TestARollbackGoesOnThroughInterrupts, until the third.
func TestARollbackGoesOnThroughInterrupts(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"rollback", "late"} {
		p := startChild(t, mode)
		p.signal(os.Interrupt)
		p.signal(os.Interrupt)
		p.signal(os.Interrupt)
		p.left("a rollback goes on", "still going back")
		if p.out.Scan() {
			t.Errorf("was told %q", p.out.Text())
		}
	}
}

// TestReleaseGivesSignalsBack: after a command's end Ctrl-C is the shell's again.
func TestReleaseGivesSignalsBack(t *testing.T) {
	s := interrupts(t.Context(), &view.Streams{Out: io.Discard, Err: io.Discard})
	if err := errors.New("mine"); !errors.Is(s.ended(err), err) {
		t.Error("an error of its own is lost")
	}
	s.release()
	s.release()
	if s.ctx.Err() == nil {
		t.Error("the context goes on")
	}
	f := phases.AsFailure(s.ended(nil))
	if f.Exit != phases.ExitInterrupted || f.Safe == "" {
		t.Errorf("got %+v", f)
	}
}

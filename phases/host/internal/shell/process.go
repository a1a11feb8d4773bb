package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

const (
	again    = 500 * time.Millisecond // until a command that did not end is looked for again
	patience = 10 * time.Second       // for it to end at all
)

// process is one running command.
type process struct {
	m        *Machine
	cmd      host.Command
	id       string
	sess     *Session
	out, err *tail                   // out is nil where the caller reads
	end      context.CancelCauseFunc // asks for its end, and says why

	once  sync.Once
	ended chan struct{} // closed when code, signal and lost hold
	code  int
	sig   string
	lost  error

	done  chan struct{} // closed after ended, when these hold too
	cause error         // why we ended it; nil: it ended by itself
	kill  error         // what went wrong in doing so
}

// follow starts what goes on beside the command: copying its output, waiting
// for its end, and ending it when the context is over.
func (p *process) follow(ctx context.Context) {
	ctx, p.end = context.WithCancelCause(ctx)
	go p.await()
	go func() {
		defer close(p.done)
		defer p.end(nil)
		select {
		case <-p.ended:
			return
		case <-ctx.Done():
		}
		if !p.over(0) {
			p.cause = context.Cause(ctx)
			p.kill = p.destroy()
		}
	}()
}

func (p *process) await() {
	var copies sync.WaitGroup
	copies.Go(func() { p.drain(p.err, p.sess.Stderr) })
	if p.out != nil {
		copies.Go(func() { p.drain(p.out, p.sess.Stdout) })
	}
	code, sig, err := p.sess.Wait()
	copies.Wait()
	p.finish(code, sig, err)
}

// drain copies until the end even if the taker fails: a full pipe would keep
// the command from ending.
func (p *process) drain(to io.Writer, from io.Reader) {
	src := &source{from: from}
	if _, err := io.Copy(to, src); err != nil && src.err == nil {
		p.end(fmt.Errorf("its output could not be taken: %w", err))
		io.Copy(io.Discard, from)
	}
}

// feed gives the command its input. A reader that fails must not look like one
// that is at its end, so the command is ended.
func (p *process) feed(from io.Reader) {
	if from != nil {
		src := &source{from: from}
		io.Copy(p.sess.Stdin, src)
		if src.err != nil {
			p.end(fmt.Errorf("its input could not be read: %w", src.err))
			return
		}
	}
	p.sess.Stdin.Close()
}

// source remembers whether it was the reading that failed.
type source struct {
	from io.Reader
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (p *process) finish(code int, sig string, err error) {
	p.once.Do(func() {
		p.code, p.sig, p.lost = code, sig, err
		<-p.m.slots
		p.sess.Close()
		close(p.ended)
	})
}

// destroy returns when the command is gone or cannot be ended.
func (p *process) destroy() error {
	p.sess.Stdin.Close()
	for until := time.Now().Add(patience); ; {
		err := p.m.kill(p.id, p.cmd.Privileged)
		if p.over(again) { // what is not found may not have begun yet
			return err
		}
		if err != nil || time.Now().After(until) {
			p.finish(-1, "", errors.New("its session does not end"))
			return err
		}
	}
}

// over waits a little for the command's end.
func (p *process) over(within time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(within):
	}
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) Read(b []byte) (int, error)  { return p.sess.Stdout.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.sess.Stdin.Write(b) }
func (p *process) CloseWrite() error           { return p.sess.Stdin.Close() }

func (p *process) Wait() (host.Result, error) {
	<-p.done
	res := host.Result{Code: p.code, Signal: p.sig, Stderr: p.err.result()}
	if p.out != nil {
		res.Stdout = p.out.result()
	}
	return res, p.verdict()
}

// verdict is the error of a command that could not run, or whose end is not
// known or was our doing.
func (p *process) verdict() error {
	program := p.cmd.Args[0]
	switch {
	case p.cause != nil && (p.kill != nil || p.code < 0):
		return p.m.Fail(host.Lost, fmt.Errorf("%s may still be running: %w", program, errors.Join(p.cause, p.kill)),
			"grep -ls "+marker+"="+p.id+" /proc/[0-9]*/environ")
	case p.lost != nil:
		return p.m.Fail(host.Lost, fmt.Errorf("the connection went away while %s ran: %w", program, p.lost),
			"whether it was done is not known")
	case p.cause != nil:
		return fmt.Errorf("%s on %s was stopped: %w", program, p.m.name, p.cause)
	}
	return p.m.sudo(p.cmd, p.code, p.err.last())
}

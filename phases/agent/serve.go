package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxLine is the longest request or answer, in bytes.
const MaxLine = 8 << 20

// Options says where an agent works. The zero value is a real host.
type Options struct {
	Root    string   // the agent's folder; empty: Dir
	Prefix  string   // put before every path of the host that the agent knows by itself (/run, /boot, …); tests only
	Path    string   // PATH of children; empty: the usual folders of NixOS and others
	Self    []string // how this program is started again, for jobs; empty: os.Executable
	Units   Units    // nil: systemd
	Journal Journal  // nil: systemd's
}

// Serve answers requests, many at once, until in ends. It returns when what it
// was doing is over: reads and children are ended, writes that have begun finish.
func Serve(ctx context.Context, in io.Reader, out io.Writer, opts Options) error {
	a := newAgent(opts)
	defer a.release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{agent: a, out: out, cancels: map[uint64]context.CancelFunc{}}
	err := s.read(ctx, in)
	cancel()
	s.running.Wait()
	return err
}

// session is one connection: its pending requests and the way back.
type session struct {
	agent   *agent
	write   sync.Mutex
	out     io.Writer
	running sync.WaitGroup
	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

func (s *session) read(ctx context.Context, in io.Reader) error {
	lines := make(chan []byte)
	fail := make(chan error, 1)
	go func() {
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			line, err := readLine(r)
			if err != nil {
				fail <- err
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case line := <-lines:
			if err := s.accept(ctx, line); err != nil {
				return err
			}
		case err := <-fail:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *session) accept(ctx context.Context, line []byte) error {
	if len(line) == 0 {
		return nil
	}
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		return fmt.Errorf("cannot read a request: %w", err)
	}
	if req.Op == OpCancel {
		s.cancel(req.Args)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.cancels[req.ID] = cancel
	s.mu.Unlock()
	s.running.Go(func() {
		res := s.agent.call(ctx, req)
		s.forget(req.ID, cancel) // before the answer: its reader may use the id again
		s.answer(req.ID, res)
	})
	return nil
}

func (s *session) cancel(args json.RawMessage) {
	var id uint64
	if json.Unmarshal(args, &id) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancels[id]; cancel != nil {
		cancel()
	}
}

func (s *session) forget(id uint64, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel()
	delete(s.cancels, id)
}

func (s *session) answer(id uint64, res Response) {
	res.ID = id
	line, err := json.Marshal(res)
	if err == nil && len(line) >= MaxLine {
		err = fmt.Errorf("the answer has %d bytes, more than %d", len(line), MaxLine)
	}
	if err != nil {
		line, _ = json.Marshal(Response{ID: id, Error: &Error{Code: "invalid", Message: err.Error()}})
	}
	s.write.Lock()
	defer s.write.Unlock()
	_, _ = s.out.Write(append(line, '\n')) // a reader that is gone is seen as the end of in
}

// call runs one operation. Whatever happens inside becomes an answer.
func (a *agent) call(ctx context.Context, req Request) (res Response) {
	defer func() {
		if p := recover(); p != nil {
			res = Response{Error: &Error{Code: "panic", Message: fmt.Sprintf("operation %s panicked: %v\n%s", req.Op, p, debug.Stack())}}
		}
	}()
	op, ok := operations[req.Op]
	if !ok {
		return Response{Error: &Error{Code: "invalid", Message: "unknown operation " + req.Op}}
	}
	if op.writes && !op.ends {
		ctx = context.WithoutCancel(ctx)
	}
	result, err := op.run(ctx, a, req.Args)
	if err != nil {
		return Response{Error: asError(err)}
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return Response{Error: asError(err)}
	}
	return Response{Result: raw}
}

var codes = []struct {
	err  error
	code string
}{
	{fs.ErrNotExist, "not-found"}, {fs.ErrExist, "exists"}, {fs.ErrPermission, "denied"},
	{unix.ENOSPC, "no-space"}, {unix.EDQUOT, "no-space"}, {unix.EBUSY, "busy"}, {unix.ETXTBSY, "busy"},
	{context.DeadlineExceeded, "timeout"}, {context.Canceled, "cancelled"}, {os.ErrDeadlineExceeded, "timeout"},
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &Error{Code: c.code, Message: err.Error()}
		}
	}
	return &Error{Code: "failed", Message: err.Error()}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > MaxLine:
			return nil, fmt.Errorf("cannot read a line of more than %d bytes", MaxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return nil, err
		default:
			return bytes.TrimRight(line, "\r\n"), nil
		}
	}
}

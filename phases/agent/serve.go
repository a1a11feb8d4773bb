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
	"time"

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

	// What else of the world there is but the time that package time knows, so
	// that a simulated one can take its place. nil is the kernel's, each.
	Disk    func(dir string) (Disk, error) // a folder of the host: Root, or one below Prefix
	Exec    func(ctx context.Context, path string, p Program) (Ending, error)
	Clock   Clock
	Sync    func() // sync(2)
	Snapper *Snapper
	Unit    string    // that this process is; empty: $DEPLOYER_UNIT
	Digest  string    // of this program; empty: of the file that it was started from
	Stdout  io.Writer // what a job's programs print

	Unfenced, Undecided bool              // without the check of the epoch, of the decision: for the tests of the tests
	Moment              func(name string) // told of steps that a restore of data or a pause can be cut short after; tests only
}

// Clock is the time since the boot, sleep included.
type Clock interface{ Boottime() time.Duration }

// Serve answers requests, many at once, until in ends. It returns when what it
// was doing is over: reads and children are ended, writes that have begun finish.
func Serve(ctx context.Context, in io.Reader, out io.Writer, opts Options) error {
	a := newAgent(opts)
	defer a.release()
	ctx, cancel := context.WithCancel(ctx)
	s := &session{agent: a, out: out, cancels: map[uint64]context.CancelFunc{}}
	ended := make(chan error, 1)
	go func() { ended <- s.read(ctx, in) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done(): // the reader may wait for ever
	}
	cancel()
	s.mu.Lock()
	s.over = true // nothing begins any more
	s.mu.Unlock()
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
	over    bool
	cancels map[uint64]context.CancelFunc
}

func (s *session) read(ctx context.Context, in io.Reader) error {
	for r := bufio.NewReaderSize(in, 64<<10); ; {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && len(line) > 0 {
			err = s.accept(ctx, line)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) accept(ctx context.Context, line []byte) error {
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		return fmt.Errorf("cannot read a request: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var other uint64
	switch {
	case s.over:
	case req.Op != OpCancel:
		ctx, s.cancels[req.ID] = context.WithCancel(ctx)
		s.running.Go(func() { s.serve(ctx, req) })
	case json.Unmarshal(req.Args, &other) == nil && s.cancels[other] != nil:
		s.cancels[other]()
	}
	return nil
}

func (s *session) serve(ctx context.Context, req Request) {
	res := s.agent.call(ctx, req)
	s.mu.Lock()
	s.cancels[req.ID]()
	delete(s.cancels, req.ID) // before the answer: its reader may use the id again
	s.mu.Unlock()
	s.answer(req.ID, res)
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
		return Response{Error: asError(invalid("unknown operation %s", req.Op))}
	}
	if op.kind > child {
		ctx = context.WithoutCancel(ctx)
	}
	result, err := a.pass(ctx, op, req)
	if err == nil {
		res.Result, err = json.Marshal(result)
	}
	if err != nil {
		res = Response{Error: asError(err)}
	}
	return res
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

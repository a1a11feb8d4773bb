package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrLost is what calls return whose answer can no longer come: what they asked
// for may have happened or not.
var ErrLost = errors.New("the connection to the agent ended")

// Client calls an agent. It is safe for use by many goroutines.
type Client struct {
	stream io.ReadWriteCloser
	write  sync.Mutex

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan Response
	ended   error
	done    chan struct{}
}

// NewClient starts to read answers from the stream; Close ends it.
func NewClient(rwc io.ReadWriteCloser) *Client {
	c := &Client{stream: rwc, pending: map[uint64]chan Response{}, done: make(chan struct{})}
	go c.read()
	return c
}

// Call asks for one operation and waits for its answer, which goes to result
// unless that is nil. An *Error is the agent's own; ErrLost says that the
// outcome is not known. A cancelled context cancels the operation as well, if
// that is a read.
func (c *Client) Call(ctx context.Context, op string, args, result any) error {
	return c.Send(ctx, Request{Op: op}, args, result)
}

// Send is Call for a request with an epoch, or with records.
func (c *Client) Send(ctx context.Context, req Request, args, result any) error {
	answer := make(chan Response, 1)
	c.mu.Lock()
	if c.ended != nil {
		defer c.mu.Unlock()
		return c.ended
	}
	c.last++
	id := c.last
	c.pending[id] = answer
	c.mu.Unlock()
	req.ID = id
	if err := c.post(req, args); err != nil {
		c.take(id)
		return err
	}
	select {
	case res, ok := <-answer:
		if !ok {
			return c.end(nil)
		}
		return unpack(req.Op, res, result)
	case <-ctx.Done():
		c.take(id)
		go func() { _ = c.post(Request{Op: OpCancel}, id) }()
		return ctx.Err()
	}
}

// Close ends the stream and with it the agent; pending calls fail.
func (c *Client) Close() error {
	_ = c.end(nil)
	return c.stream.Close()
}

// Lost is closed when the stream has ended.
func (c *Client) Lost() <-chan struct{} { return c.done }

func (c *Client) post(req Request, args any) (err error) {
	if req.Args, err = json.Marshal(args); err != nil {
		return fmt.Errorf("cannot encode %s: %w", req.Op, err)
	}
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", req.Op, err)
	}
	if len(line) >= MaxLine {
		return invalid("cannot send %s: %d bytes, more than %d", req.Op, len(line), MaxLine)
	}
	c.write.Lock()
	defer c.write.Unlock()
	if _, err := c.stream.Write(append(line, '\n')); err != nil {
		return c.end(err)
	}
	return nil
}

// read hands answers out. Lines before the first answer may be anything: a
// login shell's start files like to greet.
func (c *Client) read() {
	r := bufio.NewReaderSize(c.stream, 64<<10)
	for greeted := false; ; {
		line, err := readLine(r)
		if err != nil {
			_ = c.end(err)
			return
		}
		if !greeted {
			line = line[max(0, bytes.Index(line, []byte(`{"id":`))):]
		}
		var res Response
		err = json.Unmarshal(line, &res)
		switch {
		case err == nil && res.ID != 0:
			greeted = true
			if answer := c.take(res.ID); answer != nil {
				answer <- res
			}
		case greeted:
			_ = c.end(fmt.Errorf("not an answer: %.80q", line))
			return
		}
	}
}

func (c *Client) take(id uint64) chan Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := c.pending[id]
	delete(c.pending, id)
	return answer
}

// end fails what is pending and what comes, for the first reason that is given.
func (c *Client) end(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = ErrLost
		if err != nil && !errors.Is(err, io.EOF) {
			c.ended = fmt.Errorf("%w: %w", ErrLost, err)
		}
		close(c.done)
		for id, answer := range c.pending {
			delete(c.pending, id)
			close(answer)
		}
	}
	return c.ended
}

func unpack(op string, res Response, result any) error {
	if res.Error != nil {
		return res.Error
	}
	if result == nil || len(res.Result) == 0 {
		return nil
	}
	if err := json.Unmarshal(res.Result, result); err != nil {
		return fmt.Errorf("cannot read the answer of %s: %w", op, err)
	}
	return nil
}

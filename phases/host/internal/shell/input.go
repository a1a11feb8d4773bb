package shell

import (
	"io"
	"os"
	"sync"
)

// input is a command's standard input that may be closed while a write waits
// for the other side: then the writer closes it on its way out.
type input struct {
	to      io.WriteCloser
	one     sync.Mutex // one write at a time
	mu      sync.Mutex // guards the two below
	writing bool
	closed  bool
}

func (i *input) Write(b []byte) (int, error) {
	i.one.Lock()
	defer i.one.Unlock()
	if !i.enter() {
		return 0, os.ErrClosed
	}
	defer i.leave()
	return i.to.Write(b)
}

func (i *input) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writing = !i.closed
	return i.writing
}

func (i *input) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writing = false
	if i.closed {
		i.to.Close()
	}
}

func (i *input) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.writing {
		i.closed = true
		return nil
	}
	i.closed = true
	return i.to.Close()
}

package shell

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// input is a command's standard input that may be closed while a write waits
// for the other side: then the writer closes it on its way out.
type input struct {
	to     io.WriteCloser
	one    sync.Mutex // one write at a time
	closed atomic.Bool
	shut   sync.Once
}

func (i *input) Write(b []byte) (n int, err error) {
	i.one.Lock()
	if err = os.ErrClosed; !i.closed.Load() {
		n, err = i.to.Write(b)
	}
	i.one.Unlock()
	if i.closed.Load() {
		i.Close()
	}
	return n, err
}

func (i *input) Close() (err error) {
	i.closed.Store(true)
	if i.one.TryLock() { // else the writer sees that it is closed
		defer i.one.Unlock()
		i.shut.Do(func() { err = i.to.Close() })
	}
	return err
}

package shell

import (
	"io"
	"sync"
)

// keep is how much of a stream a Result holds.
const keep = 1 << 20

// tail keeps the last bytes written to it and passes all of them on. It is
// written by a copier and may be read before that has ended.
type tail struct {
	mu   sync.Mutex
	next io.Writer // nil: nobody else wants them
	max  int
	buf  []byte
}

// collect is where a stream goes: to the caller's writer, remembering a little
// for error messages, or into the Result.
func collect(w io.Writer) *tail {
	if w != nil {
		return &tail{next: w, max: 4 << 10}
	}
	return &tail{max: keep}
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.max { // copying only now and then keeps this linear
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
	t.mu.Unlock()
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

func (t *tail) last() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-t.max):]...)
}

// result is what the Result shows: nothing of what the caller got himself.
func (t *tail) result() []byte {
	if t.next != nil {
		return nil
	}
	return t.last()
}

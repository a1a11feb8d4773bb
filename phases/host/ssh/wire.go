package ssh

import (
	"net"
	"strings"
	"sync"
	"time"
)

// wire is a connection that knows whether its peer is still there. Whatever
// arrives shows that it is: an answer to a question may have to wait for
// megabytes that were sent before it.
type wire struct {
	net.Conn
	mu     sync.Mutex
	began  []byte        // what the peer said first
	limit  time.Duration // of silence
	silent *time.Timer   // runs out when that is reached; nil: not watched yet
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.began) < 64 {
		w.began = append(w.began, b[:n]...)
	}
	if w.silent != nil && n > 0 {
		w.silent.Reset(w.limit)
	}
	return n, err
}

// watch ends the link once its peer has been silent for too long, and asks three
// times in that time whether it is there. Without it, a host that lost its power
// would look busy for ever. Ending the connection is what ends everything that
// waits on it: commands, their streams, sessions being opened.
func (l *link) watch(limit time.Duration, lost <-chan struct{}) {
	l.wire.mu.Lock()
	l.wire.limit, l.wire.silent = limit, time.AfterFunc(limit, func() { l.Close() })
	l.wire.mu.Unlock()
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		if _, _, err := l.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
		select {
		case <-lost:
			return
		case <-tick.C:
		}
	}
}

// goodbye is what a server said instead of its banner. The ssh library skips it.
func (w *wire) goodbye() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said, _, _ := strings.Cut(string(w.began), "SSH-")
	return strings.TrimSpace(said)
}

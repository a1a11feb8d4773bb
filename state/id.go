package state

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"
)

// An id is 50 bits of milliseconds and 40 random bits in Crockford's base32:
// ids sort as their times do.
const (
	idAlphabet  = "0123456789abcdefghjkmnpqrstvwxyz"
	idTimeLen   = 10
	idRandomLen = 8
	idLen       = idTimeLen + idRandomLen
)

var lastID struct {
	sync.Mutex
	milli, random uint64
}

// newID returns an id that sorts after all that this process made before, also
// within a millisecond and when the clock goes back.
func newID(t time.Time) string {
	lastID.Lock()
	defer lastID.Unlock()
	if milli := uint64(t.UnixMilli()); milli > lastID.milli {
		lastID.milli, lastID.random = milli, random40()
	} else if lastID.random++; lastID.random == 1<<40 {
		lastID.milli, lastID.random = lastID.milli+1, 0
	}
	return base32(lastID.milli, idTimeLen) + base32(lastID.random, idRandomLen)
}

func random40() uint64 {
	var b [8]byte
	rand.Read(b[3:])
	return binary.BigEndian.Uint64(b[:])
}

func base32(n uint64, digits int) string {
	b := make([]byte, digits)
	for i := digits - 1; i >= 0; i-- {
		b[i] = idAlphabet[n&31]
		n >>= 5
	}
	return string(b)
}

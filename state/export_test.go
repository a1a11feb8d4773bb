package state

import "time"

// ForTestClock sets the clock of the package.
func ForTestClock(clock func() time.Time) (restore func()) {
	old := now
	now = clock
	return func() { now = old }
}

// Seams of single functions.
var (
	ForTestNewID = newID
	ForTestHide  = hide
)

// ForTestBeat sets how often leases taken from now on give a sign.
func ForTestBeat(every time.Duration) (restore func()) {
	old := beatEvery
	beatEvery = every
	return func() { beatEvery = old }
}

// ForTestEncode is the journal of recs.
func ForTestEncode(recs []Record) []byte {
	data, _, err := chained(recs)
	if err != nil {
		panic(err)
	}
	return data
}

package host

import "time"

// ForTestLimits shortens what a plugin may take.
func ForTestLimits(notify, plan, silence time.Duration) (restore func()) {
	before := defaults
	defaults.notify, defaults.plan, defaults.silence = notify, plan, silence
	return func() { defaults = before }
}

// The conversions, for a test that no field is forgotten.
var (
	ForTestVolume   = volumeOf
	ForTestSnapshot = snapshotOf
	ForTestSocket   = socketDir
	ForTestTrusted  = trusted
)

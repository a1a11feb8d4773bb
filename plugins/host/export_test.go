package host

import "time"

// ForTestLimits shortens what a plugin may take.
func ForTestLimits(notify, create time.Duration) (restore func()) {
	before := limits
	limits.notify, limits.create = notify, create
	return func() { limits = before }
}

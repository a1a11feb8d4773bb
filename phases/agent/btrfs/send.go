package btrfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Send writes a read-only snapshot as a stream for `btrfs receive`: all of it,
// or what is other than in a parent, which the receiver must have as well. It
// keeps signals away from its thread: one that came while the pipe is full would
// make the kernel begin the call again, and the stream with it, in its middle.
func Send(snapshot *os.File, parent uint64, to *os.File) error {
	runtime.LockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := ioctl(snapshot, iocSend, &sendArgs{FD: int64(to.Fd()), Parent: parent})
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); e != nil {
		return errors.Join(err, e) // the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("cannot send %s: %w", snapshot.Name(), err)
	}
	return nil
}

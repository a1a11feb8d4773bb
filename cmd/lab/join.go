package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// join moves the calling goroutine, for good, into the namespaces of a process:
// what it starts from then on runs there. Its thread is not given back.
func join(pid int, kinds ...string) error {
	runtime.LockOSThread()
	// The mount namespace of one thread can change only once that thread no
	// longer shares its root and working directory with the others.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("cannot leave the shared working directory: %w", err)
	}
	fds := make([]int, len(kinds)) // all opened first: the last join changes /proc
	for i, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot open the %s namespace of process %d: %w", kind, pid, err)
		}
		fds[i] = fd
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("cannot join the %s namespace of process %d: %w", kinds[i], pid, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}

// foreground runs a command as if it had been called directly: same standard
// streams, same signals, and its exit code as the error.
func foreground(dir string, env []string, argv ...string) error {
	// Whoever kills the lab command means what it runs. Go's own Pdeathsig does
	// not work here: to the child its parent, in another PID namespace, is gone.
	cmd := exec.Command("setpriv", append([]string{"--pdeathsig", "TERM", "--"}, argv...)...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread() // the death signal is tied to the thread that forks
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	go forward(signals, cmd.Process)
	return childCode(cmd.Wait())
}

// forward passes signals on, but not those that a terminal has given to the
// child already.
func forward(signals <-chan os.Signal, to *os.Process) {
	for s := range signals {
		if (s == syscall.SIGINT || s == syscall.SIGQUIT) && ofTerminal() {
			continue
		}
		_ = to.Signal(s)
	}
}

// ofTerminal reports whether this process group is the one a terminal sends its keys to.
func ofTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func signalOf(exit *exec.ExitError) syscall.Signal {
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return 0
}

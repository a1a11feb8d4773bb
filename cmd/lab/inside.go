package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// exec runs a command inside the lab, wherever this process is.
func (l lab) exec(argv []string) error {
	dir, err := os.Getwd() // joining a mount namespace forgets it
	if err != nil {
		return err
	}
	if !l.inside() {
		pid, up := l.holder()
		if !up {
			return l.notUp()
		}
		if err := join(pid, "pid", "net", "mnt"); err != nil {
			return err
		}
	}
	return foreground(dir, l.env(), argv...)
}

func (l lab) ssh(argv []string) error { return l.exec(append([]string{"ssh"}, argv...)) }

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
		defer unix.Close(fd)
		fds[i] = fd
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("cannot join the %s namespace of process %d: %w", kinds[i], pid, err)
		}
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
	go func() {
		for s := range signals {
			// A terminal gives its keys' signals to the child as well.
			if s != syscall.SIGINT && s != syscall.SIGQUIT || !ofTerminal() {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	return childCode(cmd.Wait())
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

// enterHost runs a command inside the host's namespaces, without ssh: for
// hosts that nobody can log in to.
func (m machine) enterHost(argv []string) error {
	if m.Backend == "vm" {
		return foreground("", nil, "ssh", m.Name, quote(argv))
	}
	leader, err := m.leader()
	if err != nil {
		return err
	}
	if err := join(leader, "ipc", "uts", "net", "pid", "mnt"); err != nil {
		return err
	}
	const path = "/run/wrappers/bin:/run/current-system/sw/bin:/run/current-system/sw/sbin" // of a login
	return foreground("/", []string{"PATH=" + path, "HOME=/root", "USER=root", "TERM=" + os.Getenv("TERM")}, argv...)
}

// quote makes one shell word of each argument, for ssh.
func quote(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// filler runs a function of fill.sh, on the host.
func filler(function string) func(machine, []string) error {
	return func(m machine, path []string) error {
		text, _ := embedded.ReadFile("scripts/fill.sh")
		return m.enterHost([]string{"bash", "-euc", string(text) + function + ` "$1"`, "bash", path[0]})
	}
}

// wait returns when each host lets root in by ssh and has finished booting so
// far that others may log in too.
func (l lab) wait(names []string) error {
	for _, name := range names {
		m, err := l.machine(name)
		if err != nil {
			return err
		}
		if err := m.waitSSH(); err != nil {
			return fmt.Errorf("%w\n%s", err, lastLines(read(m.path("log")), 10))
		}
	}
	return nil
}

func (m machine) waitSSH() error {
	patience := time.Minute
	if m.Backend == "vm" {
		patience = 4 * time.Minute
	}
	// One look at the port first: sshd punishes an address that keeps calling
	// without logging in.
	answers := func() bool { return !m.running() || banner(m.Address) }
	if err := within(patience, answers, "ssh on "+m.Name+" did not answer"); err != nil {
		return err
	}
	if !m.running() {
		return fmt.Errorf("host %[1]s is off: start it with: lab host %[1]s start", m.Name)
	}
	return output(exec.Command("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "root@"+m.Name,
		"for i in $(seq 600); do [ -e /run/nologin ] || exit 0; sleep 0.05; done; exit 1"))
}

func banner(address string) bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "22"), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.HasPrefix(line, "SSH-")
}

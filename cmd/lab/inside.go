package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// hostPath is the PATH of a login on a host.
const hostPath = "/run/wrappers/bin:/run/current-system/sw/bin:/run/current-system/sw/sbin"

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
	env := []string{"PATH=" + hostPath, "HOME=/root", "USER=root", "TERM=" + os.Getenv("TERM")}
	return foreground("/", env, argv...)
}

// quote makes one shell word of each argument, for ssh.
func quote(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// fillScript writes in ever smaller pieces until not a byte more fits. What a
// file system hands out late (Btrfs) it takes after a sync.
const fillScript = `f=$1/.lab-fill
for round in 1 2 3; do
  for size in 1M 64k 4k 512; do dd if=/dev/urandom bs=$size >> "$f" 2>/dev/null || true; done
  sync -f "$1"
done
df -h "$1" | tail -1`

const unfillScript = `rm -f "$1/.lab-fill"; sync -f "$1"; df -h "$1" | tail -1`

func (m machine) fill(script, path string) error {
	return m.enterHost([]string{"bash", "-euc", script, "bash", path})
}

// child runs this program inside the lab, on a thread of its own: the caller
// stays outside.
func (l lab) child(args ...string) error {
	done := make(chan error)
	go func() {
		if err := l.enter(); err != nil {
			done <- err
			return
		}
		done <- foreground("/", l.env(), append([]string{filepath.Join(l.run, "lab")}, args...)...)
	}()
	return <-done
}

// wait returns when each host lets root in by ssh and has finished booting so
// far that others may log in too.
func (l lab) wait(names []string) error {
	for _, name := range names {
		if err := l.waitHost(name); err != nil {
			return err
		}
	}
	return nil
}

const sshPatience = 60 * time.Second

func (l lab) waitHost(name string) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	// One look at the port first: sshd punishes an address that keeps calling
	// without logging in.
	answers := func() bool { return !m.running() || banner(m.Address) }
	patience := sshPatience
	if m.Backend == "vm" {
		patience = 4 * time.Minute
	}
	if err := within(patience, answers, "ssh on "+name+" did not answer"); err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(readTrimmed(m.path("log")), 10))
	}
	if !m.running() {
		return fmt.Errorf("host %s is off: start it with: lab host %s start\n%s", name, name, lastLines(readTrimmed(m.path("log")), 10))
	}
	_, err = tool("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "root@"+name,
		"for i in $(seq 600); do [ -e /run/nologin ] || exit 0; sleep 0.05; done; exit 1")
	return err
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

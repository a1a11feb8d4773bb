package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// up starts the lab's first process and waits until ssh answers on each host.
func (l lab) up(s spec) error {
	if _, up := l.holder(); up {
		return fmt.Errorf("lab %s is up already: end it with: lab down, or set LAB_ID for a second one", l.id)
	}
	if err := l.base(s); err != nil {
		return err
	}
	if err := l.down(); err != nil { // of a lab whose machine went down under it
		return err
	}
	if err := l.prepare(s); err != nil {
		return err
	}
	if err := l.startHolder(); err != nil {
		return fmt.Errorf("%w\n%s", err, l.log())
	}
	return l.child(append([]string{"wait"}, s.names()...)...)
}

// prepare fills the run's folder: what was asked for, this program, and the
// ssh files that lead to the hosts.
func (l lab) prepare(s spec) error {
	if err := os.MkdirAll(filepath.Join(l.run, "ssh"), 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := tools([]string{"cp", self, filepath.Join(l.run, "lab")}, // `go run` removes its own
		[]string{"cp", filepath.Join(l.home, "key"), filepath.Join(l.run, "ssh/id_ed25519")}); err != nil {
		return err
	}
	var known []string
	for _, h := range s.Hosts {
		dir := filepath.Join(l.run, h.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if _, err := tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", h.Name, "-f", filepath.Join(dir, "key")); err != nil {
			return err
		}
		key, err := os.ReadFile(filepath.Join(dir, "key.pub"))
		if err != nil {
			return err
		}
		known = append(known, knownHost(h, string(key)))
	}
	if err := writeFiles(filepath.Join(l.run, "ssh"), map[string]string{"config": sshConfig(s), "known_hosts": strings.Join(known, "")}); err != nil {
		return err
	}
	return l.save(s)
}

// knownHost names the host as ssh asks for it, on the usual port and on the
// one that tests move sshd to.
func knownHost(h host, key string) string {
	fields := strings.Fields(key)
	return fmt.Sprintf("%[1]s,%[2]s,[%[1]s]:2222,[%[2]s]:2222 %[3]s %[4]s\n", h.Name, h.Address, fields[0], fields[1])
}

func sshConfig(s spec) string {
	var b strings.Builder
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "Host %s\n  HostName %s\n  IdentityFile ~/.ssh/id_ed25519\n", h.Name, h.Address)
	}
	return b.String()
}

func (l lab) startHolder() error {
	logFile, err := os.Create(filepath.Join(l.run, "log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(filepath.Join(l.run, "lab"), "_holder", l.run)
	cmd.Env = l.env()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the lab: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := os.WriteFile(filepath.Join(l.run, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return err
	}
	for !exists(filepath.Join(l.run, "ready")) {
		select {
		case <-ended:
			return fmt.Errorf("cannot start lab %s", l.id)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func (l lab) log() string {
	data, _ := os.ReadFile(filepath.Join(l.run, "log"))
	return lastLines(string(data), 10)
}

// down kills the first process; hosts, mounts and interfaces go with it.
func (l lab) down() error {
	if pid, up := l.holder(); up {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("cannot end lab %s: %w", l.id, err)
		}
		for up {
			time.Sleep(10 * time.Millisecond)
			_, up = l.holder()
		}
	}
	if err := l.removeCgroups(); err != nil {
		return err
	}
	return os.RemoveAll(l.run)
}

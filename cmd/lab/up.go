package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// up starts the lab's first process and waits until ssh answers on each host.
func (l lab) up(s spec, names []string) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := need(s.Backend); err != nil {
		return err
	}
	s, err := s.withHosts(names)
	if err != nil {
		return err
	}
	if _, up := l.holder(); up {
		return fmt.Errorf("lab %s is up already: end it with: lab down, or set LAB_ID for a second one", l.id)
	}
	for _, step := range []func(spec) error{
		l.base,
		func(spec) error { return l.down(nil) }, // of a lab whose machine went down under it
		l.prepare, l.startHolder, l.greet,
	} {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

// prepare fills the run's folder.
func (l lab) prepare(s spec) error {
	call := []string{"prepare", self()}
	for _, h := range s.Hosts {
		call = append(call, h.Name+":"+h.Address)
	}
	if err := l.sh(call...); err != nil {
		return err
	}
	return writeJSON(filepath.Join(l.run, "spec.json"), s)
}

func (l lab) greet(s spec) error {
	if err := foreground("", nil, append([]string{self(), "wait"}, s.names()...)...); err != nil {
		return err
	}
	if bootFilesystem() != "vfat" {
		fmt.Fprintln(os.Stderr, "lab: this kernel has no vfat: /boot of the hosts is ext4")
	}
	return foreground("", nil, self(), "status")
}

func (l lab) startHolder(spec) error {
	cmd := exec.Command(filepath.Join(l.run, "lab"), "_holder", l.run)
	cmd.Env = l.env()
	cloned := uintptr(syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET)
	log := filepath.Join(l.run, "log")
	if err := detach(cmd, cloned, log, filepath.Join(l.run, "pid")); err != nil {
		return fmt.Errorf("cannot start lab %s: %w", l.id, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !exists(filepath.Join(l.run, "ready")) {
		select {
		case <-ended:
			return fmt.Errorf("cannot start lab %s\n%s", l.id, lastLines(read(log), 10))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// detach starts what goes on without this process, in new namespaces; its
// number is written down.
func detach(cmd *exec.Cmd, cloned uintptr, log, pid string) error {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: cloned}
	if err := cmd.Start(); err != nil {
		return err
	}
	return os.WriteFile(pid, []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// hold is the first process of a lab: it sets up the namespaces, starts the
// hosts and then lives on so that they do.
func (l lab) hold([]string) error {
	s, err := l.spec()
	if err != nil {
		return err
	}
	if err := l.sh("hold"); err != nil {
		return err
	}
	for _, h := range s.Hosts {
		m := machine{l, s, h}
		for _, step := range []func() error{func() error { return m.sh("plug") }, func() error { return m.sh("fresh") }, m.start} {
			if err := step(); err != nil {
				return fmt.Errorf("cannot start host %s: %w", h.Name, err)
			}
		}
	}
	if err := writeFile(filepath.Join(l.run, "ready"), nil); err != nil {
		return err
	}
	for { // what loses its parent becomes ours; a killed holder takes all along
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); err == syscall.ECHILD {
			time.Sleep(time.Second)
		}
	}
}

// down kills the first process; hosts, mounts and interfaces go with it.
func (l lab) down([]string) error {
	pid, up := l.holder()
	if up {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("cannot end lab %s: %w", l.id, err)
		}
	}
	for ; up; _, up = l.holder() {
		time.Sleep(10 * time.Millisecond)
	}
	if err := l.sh("remove_cgroups"); err != nil {
		return fmt.Errorf("cannot end lab %s: %w", l.id, err)
	}
	return os.RemoveAll(l.run)
}

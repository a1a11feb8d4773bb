package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hold is the first process of a lab: it sets up the namespaces, starts the
// hosts and then lives on so that they do.
func (l lab) hold() error {
	s, err := l.spec()
	if err != nil {
		return err
	}
	for _, step := range []func(spec) error{l.markNamespace, l.mounts, l.bridge, l.startAll} {
		if err := step(s); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(l.run, "ready"), nil, 0o644); err != nil {
		return err
	}
	for { // what loses its parent becomes ours; a killed holder takes all along
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); err == syscall.ECHILD {
			time.Sleep(time.Second)
		}
	}
}

func (l lab) markNamespace(spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.run, "namespace"), []byte(ns), 0o644)
}

// mounts puts the lab's store, host names and ssh files where programs look
// for them; nothing outside the lab sees it.
func (l lab) mounts(s spec) error {
	hosts, _ := os.ReadFile("/etc/hosts")
	text := strings.TrimRight(string(hosts), "\n") + "\n"
	for _, h := range s.Hosts {
		text += h.Address + " " + h.Name + "\n"
	}
	if err := writeFiles(l.run, map[string]string{"hosts": text}); err != nil {
		return err
	}
	home := rootHome()
	for _, dir := range []string{"/run/netns", filepath.Join(home, ".ssh")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		return err
	}
	for from, to := range map[string]string{
		filepath.Join(l.home, "store"): "/nix", filepath.Join(l.run, "hosts"): "/etc/hosts", filepath.Join(l.run, "ssh"): filepath.Join(home, ".ssh"),
	} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", from, to, err)
		}
	}
	return nil
}

// rootHome is where ssh looks, whatever HOME says.
func rootHome() string {
	data, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(line, ":"); f[0] == "root" && len(f) > 5 {
			return f[5]
		}
	}
	return "/root"
}

func (l lab) startAll(s spec) error {
	for _, h := range s.Hosts {
		m := machine{l, s, h}
		for _, step := range []func() error{m.plug, m.install, m.start} {
			if err := step(); err != nil {
				return fmt.Errorf("cannot start host %s: %w", h.Name, err)
			}
		}
	}
	return nil
}

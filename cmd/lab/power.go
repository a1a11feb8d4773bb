package main

import (
	"fmt"
	"syscall"
	"time"
)

// sigRTMin as PID 1's systemd counts: +4 powers off, +5 reboots.
const sigRTMin = 34

var powerActions = map[string]func(machine) error{
	"start": machine.start, "stop": machine.stop, "reboot": machine.reboot, "kill": machine.kill,
	"freeze":    func(m machine) error { return m.freeze(true) },
	"thaw":      func(m machine) error { return m.freeze(false) },
	"powerloss": machine.powerLoss, "reset": machine.reset,
}

// stop is an orderly power-off.
func (m machine) stop() error {
	if err := m.signal(sigRTMin+4, "systemctl poweroff"); err != nil {
		return err
	}
	return m.gone(90 * time.Second)
}

// reboot returns when the next boot has begun, so that nobody takes the old
// system's last answers for the new one's.
func (m machine) reboot() error {
	before := m.boots()
	if err := m.signal(sigRTMin+5, "systemctl reboot"); err != nil {
		return err
	}
	return m.within90(func() bool { return m.boots() > before }, "boot again")
}

func (m machine) signal(s syscall.Signal, command string) error {
	if m.Backend == "vm" {
		_, err := tool("ssh", m.Name, command+" --no-block")
		return err
	}
	leader, err := m.leader()
	if err != nil {
		return err
	}
	return syscall.Kill(leader, s)
}

// kill ends every process of the host at once. Of a container the kernel still
// writes out what is in its cache: see powerLoss.
func (m machine) kill() error {
	leader, err := m.leader()
	if err != nil {
		return err
	}
	if err := syscall.Kill(leader, syscall.SIGKILL); err != nil {
		return err
	}
	if err := m.freeze(false); err != nil { // the frozen do not die
		return err
	}
	return m.gone(20 * time.Second)
}

// powerLoss copies the disks while nothing moves: what had not been synced is
// in the file systems' caches, not in the files, and is gone at the next start.
func (m machine) powerLoss() error {
	if m.Backend == "vm" {
		return m.kill() // its cache dies with it
	}
	if err := m.freeze(true); err != nil {
		return err
	}
	err := tools([]string{"cp", "--sparse=always", m.path("disk"), m.path("disk.lost")}, []string{"cp", "--sparse=always", m.path("boot"), m.path("boot.lost")})
	if killErr := m.kill(); err != nil || killErr != nil {
		return fmt.Errorf("cannot take the power from %s: %v %v", m.Name, err, killErr)
	}
	return tools([]string{"mv", m.path("disk.lost"), m.path("disk")}, []string{"mv", m.path("boot.lost"), m.path("boot")})
}

// reset gives the host a fresh image, as `lab up` did; its link is healed too.
func (m machine) reset() error {
	if m.running() {
		if err := m.kill(); err != nil {
			return err
		}
	}
	if err := m.clearLink(); err != nil {
		return err
	}
	if err := m.install(); err != nil {
		return err
	}
	return m.start()
}

func (m machine) gone(patience time.Duration) error {
	return within(patience, func() bool { return !m.running() }, m.Name+" did not stop")
}

func (m machine) within90(done func() bool, what string) error {
	return within(90*time.Second, done, m.Name+" did not "+what)
}

// within asks again and again until an answer is true or time is up.
func within(patience time.Duration, done func() bool, otherwise string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return fmt.Errorf("%s within %s", otherwise, patience)
}

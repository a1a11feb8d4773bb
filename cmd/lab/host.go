package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func (m machine) shell(call ...string) *exec.Cmd {
	return m.lab.shell([]string{"DIR=" + m.path(""), "NAME=" + m.Name, "INDEX=" + strconv.Itoa(m.Index), "ADDRESS=" + m.Address,
		"BACKEND=" + m.Backend, "LAYOUT=" + m.Layout, "IMAGE=" + m.image(m.spec, m.System)}, call...)
}

func (m machine) sh(call ...string) error { return output(m.shell(call...)) }

// start begins the process that plays the host's hardware. Its mounts are its
// own: nspawn keeps all it finds, so a container would hold the file systems of
// hosts that were started before it.
func (m machine) start() error {
	if m.running() {
		return fmt.Errorf("host %s is running already", m.Name)
	}
	return detach(exec.Command(filepath.Join(m.run, "lab"), "_host", m.Name), syscall.CLONE_NEWNS, m.path("log"), m.path("pid"))
}

// play is the hardware, boot loader and initrd of one host: it assembles the
// file systems, starts the entry that is due, and again when the host reboots.
func (m machine) play([]string) error {
	if err := m.sh("join_cgroups"); err != nil {
		return err
	}
	for {
		again, err := m.boot()
		if err != nil || !again {
			return err
		}
	}
}

func (m machine) boot() (again bool, err error) {
	e, err := m.bios()
	if err != nil {
		return false, err
	}
	if err := m.sh("assemble", strconv.FormatBool(e.keep)); err != nil {
		return false, err
	}
	fmt.Printf("lab: booting %s (%s)\n", e.name, e.init)
	if err := writeFile(m.path("boots"), []byte(strconv.Itoa(m.number("boots")+1))); err != nil {
		return false, err
	}
	cmd := m.shell(m.Backend, e.init)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run() // how it ended is in its code
	code := cmd.ProcessState.ExitCode()
	fmt.Printf("lab: %s stopped (%d)\n", m.Name, code)
	if m.Backend == "vm" { // with -no-reboot both ends look alike; the kernel's last words tell
		words := lastLines(read(m.path("console")), 3)
		return code == 0 && (strings.Contains(words, "reboot: Restarting") || strings.Contains(words, "Rebooting in")), nil
	}
	const reboot = 133 // nspawn's, when the container asked for it
	return code == reboot, m.sh("umount", "-R", m.path("root"))
}

// bios looks at /boot before anything else of the host is mounted.
func (m machine) bios() (entry, error) {
	dir := m.path("bios")
	if err := m.sh("mount_boot", dir); err != nil {
		return entry{}, err
	}
	e, err := chooseEntry(dir, m.Loader)
	return e, errors.Join(err, m.sh("umount", dir))
}

// number is what a file of the host holds: its boots, or as pid the process that
// plays it, as numbered in the lab.
func (m machine) number(file string) int {
	n, _ := strconv.Atoi(read(m.path(file)))
	return n
}

func (m machine) running() bool {
	return strings.HasSuffix(read("/proc", strconv.Itoa(m.number("pid")), "cmdline"), "_host\x00"+m.Name+"\x00")
}

// leader is the host's PID 1, as numbered in the lab.
func (m machine) leader() (int, error) {
	for _, child := range childrenOf(m.number("pid")) {
		if m.Backend == "vm" {
			return child, nil
		}
		for _, pid := range childrenOf(child) {
			if ids := strings.Fields(status(pid, "NSpid:")); len(ids) > 1 && ids[len(ids)-1] == "1" {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("host %[1]s is not running: start it with: lab host %[1]s start", m.Name)
}

func status(pid int, key string) string {
	return field(read("/proc", strconv.Itoa(pid), "status"), key)
}

func childrenOf(parent int) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && status(pid, "PPid:") == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

const verbs = "start|stop|reboot|kill|freeze|thaw|powerloss|reset"

func (m machine) press(args []string) error {
	action, ok := map[string]func() error{
		"start": m.start, "stop": m.stop, "reboot": m.reboot, "kill": m.kill,
		"freeze":    func() error { return m.sh("freeze", "1") },
		"thaw":      func() error { return m.sh("freeze", "0") },
		"powerloss": m.powerLoss, "reset": m.reset,
	}[args[0]]
	if !ok {
		return fmt.Errorf("cannot %s a host: see lab host --help", args[0])
	}
	return action()
}

// stop is an orderly power-off.
func (m machine) stop() error {
	if err := m.systemctl("poweroff", 4); err != nil {
		return err
	}
	return m.gone()
}

// reboot returns when the next boot has begun, so that nobody takes the old
// system's last answers for the new one's.
func (m machine) reboot() error {
	before := m.number("boots")
	if err := m.systemctl("reboot", 5); err != nil {
		return err
	}
	return within(90*time.Second, func() bool { return m.number("boots") > before }, m.Name+" did not boot again")
}

// systemctl asks PID 1, in a container by the signal that means the same.
func (m machine) systemctl(command string, signal int) error {
	if m.Backend == "vm" {
		return output(exec.Command("ssh", m.Name, "systemctl "+command+" --no-block"))
	}
	leader, err := m.leader()
	if err != nil {
		return err
	}
	const sigRTMin = 34 // as systemd counts
	return syscall.Kill(leader, syscall.Signal(sigRTMin+signal))
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
	if err := m.sh("freeze", "0"); err != nil { // the frozen do not die
		return err
	}
	return m.gone()
}

func (m machine) gone() error {
	return within(90*time.Second, func() bool { return !m.running() }, m.Name+" did not stop")
}

// powerLoss copies the disks while nothing moves: what had not been synced is
// in the file systems' caches, not in the files, and is gone at the next start.
func (m machine) powerLoss() error {
	if m.Backend == "vm" {
		return m.kill() // its cache dies with it
	}
	err := m.sh("take_power")
	if err := errors.Join(err, m.kill()); err != nil {
		return fmt.Errorf("cannot take the power from %s: %w", m.Name, err)
	}
	return m.sh("lose_power")
}

// reset gives the host a fresh image, as `lab up` did; its link is healed too.
func (m machine) reset() error {
	if m.running() {
		if err := m.kill(); err != nil {
			return err
		}
	}
	for _, call := range []string{"clear_link", "fresh"} {
		if err := m.sh(call); err != nil {
			return err
		}
	}
	return m.start()
}

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
)

// start begins the process that plays the host's hardware.
func (m machine) start() error {
	if m.running() {
		return fmt.Errorf("host %s is running already", m.Name)
	}
	logFile, err := os.OpenFile(m.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(filepath.Join(m.run, "lab"), "_host", m.Name)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// Its mounts are its own: nspawn keeps all it finds, so a container would
	// hold the file systems of hosts that were started before it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return err
	}
	return os.WriteFile(m.path("pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// play is the hardware, boot loader and initrd of one host: it assembles the
// file systems, starts the entry that is due, and again when the host reboots.
func (m machine) play() error {
	if err := m.joinCgroups(); err != nil {
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
	if err := m.assemble(e.keep); err != nil {
		return false, err
	}
	fmt.Printf("lab: booting %s (%s)\n", e.name, e.init)
	if err := m.countBoot(); err != nil {
		return false, err
	}
	if m.Backend == "vm" {
		if err := m.disassemble(); err != nil { // the guest mounts them itself
			return false, err
		}
		return m.runVM(e)
	}
	boot := filepath.Join(m.path("root"), "boot")
	if err := m.mountImage("boot", boot, bootOptions()); err != nil {
		return false, err
	}
	if err := m.powerOn(); err != nil {
		return false, err
	}
	code, err := m.runContainer(e)
	fmt.Printf("lab: %s stopped (%d)\n", m.Name, code)
	return code == rebootCode, errors.Join(err, m.disassemble())
}

// bios looks at /boot before anything else of the host is mounted.
func (m machine) bios() (entry, error) {
	dir := m.path("bios")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return entry{}, err
	}
	if err := m.mountImage("boot", dir, bootOptions()); err != nil {
		return entry{}, err
	}
	e, err := chooseEntry(dir, m.Loader)
	_, umountErr := tool("umount", dir)
	return e, errors.Join(err, umountErr)
}

func bootOptions() string {
	if bootFilesystem() == "vfat" {
		return "umask=0077"
	}
	return "noatime"
}

// rebootCode is how nspawn ends when the container asked for a reboot.
const rebootCode = 133

func (m machine) runContainer(e entry) (int, error) {
	root := m.path("root")
	args := []string{
		"--register=no", "--keep-unit", "--quiet", "--machine=" + m.Name, "--directory=" + root,
		"--network-namespace-path=/run/netns/" + m.Name, "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--kill-signal=SIGRTMIN+3", "--capability=CAP_NET_ADMIN", "--console=pipe",
	}
	for _, at := range []string{root, filepath.Join(root, "boot")} {
		dev, err := m.device(at)
		if err != nil {
			return 0, err
		}
		args = append(args, "--bind="+dev)
	}
	cmd := exec.Command("systemd-nspawn", append(args, e.init)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func (m machine) boots() int {
	n, _ := strconv.Atoi(readTrimmed(m.path("boots")))
	return n
}

func (m machine) countBoot() error {
	return os.WriteFile(m.path("boots"), []byte(strconv.Itoa(m.boots()+1)), 0o644)
}

// supervisor is the process that plays the host, as numbered in the lab.
func (m machine) supervisor() int {
	pid, _ := strconv.Atoi(readTrimmed(m.path("pid")))
	return pid
}

func (m machine) running() bool {
	pid := m.supervisor()
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid > 0 && strings.HasSuffix(string(cmdline), "_host\x00"+m.Name+"\x00")
}

// leader is the host's PID 1, as numbered in the lab.
func (m machine) leader() (int, error) {
	for _, child := range childrenOf(m.supervisor()) {
		if m.Backend == "vm" {
			return child, nil
		}
		for _, pid := range childrenOf(child) {
			if ids := strings.Fields(field(procStatus(pid), "NSpid:")); len(ids) > 1 && ids[len(ids)-1] == "1" {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("host %s is not running: start it with: lab host %s start", m.Name, m.Name)
}

func procStatus(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return strings.ReplaceAll(string(data), "\t", " ")
}

func childrenOf(parent int) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && field(procStatus(pid), "PPid:") == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

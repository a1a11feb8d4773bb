package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// bridge is the network all hosts of the lab are plugged into.
func (l lab) bridge(spec) error {
	return tools(
		[]string{"ip", "link", "set", "lo", "up"},
		[]string{"ip", "link", "add", "br0", "type", "bridge"},
		[]string{"ip", "addr", "add", gateway + "/24", "dev", "br0"},
		[]string{"ip", "link", "set", "br0", "up"},
	)
}

// Names of the host's interfaces on the lab's side: the cable, and the two
// ends of the link that lies between cable and bridge while there is delay.
func (m machine) cable() string { return fmt.Sprintf("v%d", m.Index) }
func (m machine) inner() string { return fmt.Sprintf("w%d", m.Index) }
func (m machine) outer() string { return fmt.Sprintf("x%d", m.Index) }
func (m machine) linked() bool  { return exists(m.path("link")) }
func (m machine) onBridge() string {
	if m.linked() {
		return m.outer()
	}
	return m.cable()
}

// plug gives the host an interface with its address before it boots: no DHCP,
// nothing that a reboot or a reset would have to do again.
func (m machine) plug() error {
	if m.Backend == "vm" {
		return tools([]string{"ip", "tuntap", "add", "dev", m.cable(), "mode", "tap"}, []string{"ip", "link", "set", m.cable(), "master", "br0", "up"})
	}
	inside := func(args ...string) []string { return append([]string{"ip", "-n", m.Name}, args...) }
	return tools(
		[]string{"ip", "netns", "add", m.Name},
		[]string{"ip", "link", "add", m.cable(), "type", "veth", "peer", "name", "host0", "netns", m.Name},
		[]string{"ip", "link", "set", m.cable(), "master", "br0", "up"},
		inside("link", "set", "lo", "up"),
		inside("addr", "add", m.Address+"/24", "dev", "host0"),
		inside("link", "set", "host0", "up"),
		inside("route", "add", "default", "via", gateway),
	)
}

// cut is silent: no carrier is lost, nothing is refused.
func (m machine) cut() error {
	return tools([]string{"ip", "link", "set", m.onBridge(), "nomaster"})
}

func (m machine) heal() error {
	return tools([]string{"ip", "link", "set", m.onBridge(), "master", "br0"})
}

// disturb puts the link between bridge and host; both ways pass through it.
func (m machine) disturb(delay, jitter time.Duration, loss float64) error {
	if err := m.clearLink(); err != nil {
		return err
	}
	err := tools(
		[]string{"ip", "link", "add", m.outer(), "type", "veth", "peer", "name", m.inner()},
		[]string{"ip", "link", "set", m.cable(), "nomaster"},
		[]string{"ip", "link", "set", m.cable(), "promisc", "on"},
		[]string{"ip", "link", "set", m.inner(), "promisc", "on", "up"},
		[]string{"ip", "link", "set", m.outer(), "master", "br0", "up"},
	)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "_link", delay.String(), jitter.String(), strconv.FormatFloat(loss, 'f', -1, 64), m.cable(), m.inner())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if n, _ := ready.Read(make([]byte, 1)); n == 0 { // it says so when frames pass
		return fmt.Errorf("cannot put a link before %s: %w", m.Name, cmd.Wait())
	}
	return os.WriteFile(m.path("link"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// clearLink makes the host's network good again, whatever was done to it.
func (m machine) clearLink() error {
	if m.linked() {
		if pid, _ := strconv.Atoi(readTrimmed(m.path("link"))); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := tools([]string{"ip", "link", "del", m.outer()}, []string{"rm", m.path("link")}, []string{"ip", "link", "set", m.cable(), "promisc", "off"}); err != nil {
			return err
		}
	}
	if m.Backend != "vm" { // a host may have taken its own end down
		if err := m.linkUp(); err != nil {
			return err
		}
	}
	return m.heal()
}

func (m machine) linkUp() error {
	_, err := tool("ip", "-n", m.Name, "link", "set", "host0", "up")
	_, _ = tool("ip", "-n", m.Name, "route", "add", "default", "via", gateway) // it goes with the link
	return err
}

// powerOn is what a boot does to a machine's network: the namespace outlives the
// container, a firewall in it and a link that is down must not.
func (m machine) powerOn() error {
	if _, err := tool("ip", "netns", "exec", m.Name, "nft", "flush", "ruleset"); err != nil {
		return err
	}
	return m.linkUp()
}

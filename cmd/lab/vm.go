package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is the newest one of Debian's in /boot, "" where there is none.
func kernel() string {
	files, _ := filepath.Glob("/boot/vmlinuz-*")
	if len(files) == 0 {
		return ""
	}
	slices.SortFunc(files, naturalCompare)
	return strings.TrimPrefix(files[len(files)-1], "/boot/vmlinuz-")
}

// runVM starts the host as a virtual machine, as emulation runs best: with two
// processors one boot of six hung; tb-size bounds a cache of 1 GiB.
func (m machine) runVM(e entry) (again bool, err error) {
	if err := m.makeInitrd(); err != nil {
		return false, err
	}
	_ = os.Remove(m.path("console"))
	cmd := exec.Command("qemu-system-x86_64",
		"-accel", "tcg,thread=single,tb-size=96", "-cpu", "max", "-m", "512", "-nographic", "-nodefaults", "-no-reboot", "-monitor", "none",
		"-kernel", "/boot/vmlinuz-"+kernel(), "-initrd", m.path("initrd"), "-serial", "file:"+m.path("console"),
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=1 mitigations=off lab.name=%s lab.ip=%s/24 lab.gw=%s lab.layout=%s init=%s", m.Name, m.Address, gateway, m.Layout, e.init),
		"-drive", "file="+m.path("disk")+",if=virtio,format=raw,cache=writeback",
		"-drive", "file="+m.path("boot")+",if=virtio,format=raw,cache=writeback",
		"-device", "virtio-rng-pci",
		"-netdev", "tap,id=n,ifname="+m.cable()+",script=no,downscript=no",
		"-device", fmt.Sprintf("virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:%02x", m.Index))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return false, err
	}
	// With -no-reboot both ends look alike; the kernel's last words tell.
	words := lastLines(readTrimmed(m.path("console")), 3)
	return strings.Contains(words, "reboot: Restarting") || strings.Contains(words, "Rebooting in"), nil
}

// makeInitrd makes an initramfs of busybox, the modules a guest needs, and what
// is left of stage 1: the root has been renewed already.
func (m machine) makeInitrd() error {
	script, err := embedded.ReadFile("scripts/initrd.sh")
	if err != nil {
		return err
	}
	init, err := embedded.ReadFile("scripts/initrd-init.sh")
	if err != nil {
		return err
	}
	var mounts []string
	for _, v := range subvolumes {
		mounts = append(mounts, v[0]+":"+v[1])
	}
	text := strings.NewReplacer("@subvolumes@", strings.Join(mounts, " "), "@bootfs@", bootFilesystem()).Replace(string(init))
	_, err = toolEnv([]string{"KERNEL=" + kernel(), "BUSYBOX=" + filepath.Join(m.home, "userland/usr/bin/busybox"), "OUT=" + m.path("initrd"),
		"INIT=" + text, "BOOT_FS=" + bootFilesystem()}, "bash", "-euc", string(script))
	return err
}

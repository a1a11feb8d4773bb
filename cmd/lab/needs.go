package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
)

const aptInstall = "apt-get install -y --no-install-recommends "

// packageOf tells which Debian package brings a program the lab calls.
var packageOf = map[string]string{
	"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "patchelf": "patchelf",
	"btrfs": "btrfs-progs", "btrfstune": "btrfs-progs", "mkfs.btrfs": "btrfs-progs",
	"mkfs.vfat": "dosfstools", "mkfs.ext4": "e2fsprogs", "ip": "iproute2", "mount": "mount", "findmnt": "util-linux",
	"ssh": "openssh-client", "ssh-keygen": "openssh-client", "git": "git", "cp": "coreutils",
}

var packageOfVM = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86", "modprobe": "kmod", "cpio": "cpio", "gzip": "gzip",
}

// need says, with the command that mends it, what the machine lacks for a lab.
func need(backend string) error {
	if os.Geteuid() != 0 {
		return missingError{"the lab needs root: it makes namespaces, mounts and loop devices", "  run it as: sudo lab …"}
	}
	programs := []map[string]string{packageOf}
	if backend == "vm" {
		programs = append(programs, packageOfVM)
	}
	if lacks := lacking(programs...); len(lacks) > 0 {
		return missingError{"this machine lacks packages the lab is made of", "  " + aptInstall + strings.Join(lacks, " ")}
	}
	if backend == "vm" && kernel() == "" {
		return missingError{"there is no kernel in /boot for virtual machines", "  " + aptInstall + "linux-image-cloud-amd64"}
	}
	if !exists("/dev/loop-control") {
		return missingError{"there is no /dev/loop-control, so images cannot be mounted", "  modprobe loop"}
	}
	if !hasFilesystem("btrfs") {
		return missingError{"this kernel has no Btrfs", "  modprobe btrfs, or use a kernel that has it"}
	}
	return nil
}

func lacking(programs ...map[string]string) []string {
	var packages []string
	for _, set := range programs {
		for program, pkg := range set {
			if _, err := exec.LookPath(program); err != nil && !slices.Contains(packages, pkg) {
				packages = append(packages, pkg)
			}
		}
	}
	slices.Sort(packages)
	return packages
}

func hasFilesystem(name string) bool {
	known := func() bool {
		data, _ := os.ReadFile("/proc/filesystems")
		return slices.Contains(strings.Fields(string(data)), name)
	}
	if !known() {
		_ = exec.Command("modprobe", name).Run() // it may be a module nobody has used yet
	}
	return known()
}

// bootFilesystem is what /boot of a host is made with: vfat as on a machine
// with an EFI system partition; where the kernel has none, the nearest thing,
// the other file system that GRUB can write.
func bootFilesystem() string {
	if hasFilesystem("vfat") {
		return "vfat"
	}
	return "ext4"
}

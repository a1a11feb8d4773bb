package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Packages of Debian, each with the programs of it that the lab calls.
var (
	packages = map[string]string{
		"systemd-container": "systemd-nspawn", "mmdebstrap": "mmdebstrap", "patchelf": "patchelf",
		"btrfs-progs": "btrfs btrfstune mkfs.btrfs", "dosfstools": "mkfs.vfat", "e2fsprogs": "mkfs.ext4", "iproute2": "ip", "nftables": "nft",
		"mount": "mount", "util-linux": "findmnt setpriv", "openssh-client": "ssh ssh-keygen", "git": "git", "coreutils": "cp",
	}
	packagesOfVM = map[string]string{"qemu-system-x86": "qemu-system-x86_64", "kmod": "modprobe", "cpio": "cpio", "gzip": "gzip"}
)

// need says, with the command that mends it, what the machine lacks for a lab.
func need(backend string) error {
	const install = "apt-get install -y --no-install-recommends "
	lacks, kernels := lacking(packages), []string{"any"}
	if backend == "vm" {
		lacks = append(lacks, lacking(packagesOfVM)...)
		kernels, _ = filepath.Glob("/boot/vmlinuz-*")
	}
	for _, n := range []struct {
		there      bool
		what, hint string
	}{
		{os.Geteuid() == 0, "the lab needs root: it makes namespaces, mounts and loop devices", "run it as: sudo lab …"},
		{len(lacks) == 0, "this machine lacks packages the lab is made of", install + strings.Join(lacks, " ")},
		{len(kernels) > 0, "there is no kernel in /boot for virtual machines", install + "linux-image-cloud-amd64"},
		{exists("/dev/loop-control"), "there is no /dev/loop-control, so images cannot be mounted", "modprobe loop"},
		{hasFilesystem("btrfs"), "this kernel has no Btrfs", "modprobe btrfs, or use a kernel that has it"},
	} {
		if !n.there {
			return missingError{n.what, "  " + n.hint}
		}
	}
	return nil
}

func lacking(of map[string]string) []string {
	var names []string
	for name, programs := range of {
		for _, program := range strings.Fields(programs) {
			if _, err := exec.LookPath(program); err != nil && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func hasFilesystem(name string) bool {
	known := func() bool { return slices.Contains(strings.Fields(read("/proc/filesystems")), name) }
	if !known() {
		_ = exec.Command("modprobe", name).Run() // it may be a module nobody has used yet
	}
	return known()
}

// bootFilesystem is what /boot of a host is made with: vfat as on a machine
// with an EFI system partition; where the kernel has none, the nearest thing,
// the other file system that GRUB can write.
var bootFilesystem = sync.OnceValue(func() string {
	if hasFilesystem("vfat") {
		return "vfat"
	}
	return "ext4"
})

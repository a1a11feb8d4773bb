package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const btrfsOptions = "compress=zstd:1"

// install gives the host a fresh disk and /boot, with a file system identity
// of its own: older kernels take two twins for one.
func (m machine) install() error {
	if err := os.MkdirAll(m.path("root"), 0o755); err != nil {
		return err
	}
	file := m.image(m.spec, m.System).file()
	return tools(
		// New files: a loop device of the old ones may live a moment longer.
		[]string{"rm", "-f", m.path("disk"), m.path("boot")},
		[]string{"cp", "--sparse=always", file + ".img", m.path("disk")},
		[]string{"cp", "--sparse=always", file + ".boot", m.path("boot")},
		[]string{"btrfstune", "-f", "-m", m.path("disk")},
	)
}

// assemble mounts the host's file systems as its initrd would: an empty root
// in place of the last one, the kept subvolumes beside it, /boot.
func (m machine) assemble(keepRoot bool) error {
	dev, err := m.mountRoot("root")
	if err != nil {
		return err
	}
	root := m.path("root")
	if m.Layout == "ephemeral" {
		if !keepRoot && exists(filepath.Join(root, "etc/NIXOS")) {
			if err := m.renewRoot(dev); err != nil {
				return err
			}
		}
		for _, v := range subvolumes {
			if err := unix.Mount(dev, root+v[1], "btrfs", unix.MS_NOATIME, btrfsOptions+",subvol="+v[0]); err != nil {
				return fmt.Errorf("cannot mount subvolume %s: %w", v[0], err)
			}
		}
	}
	return m.giveHostKey()
}

// mountRoot lets mount make the loop device: it goes by itself with its last
// mount, however the lab ends.
func (m machine) mountRoot(subvol string) (dev string, err error) {
	if err := m.mountImage("disk", m.path("root"), "noatime,"+btrfsOptions+",subvol="+subvol); err != nil {
		return "", err
	}
	return m.device(m.path("root"))
}

func (m machine) device(mounted string) (string, error) {
	source, err := tool("findmnt", "-fno", "SOURCE", mounted)
	dev, _, _ := strings.Cut(source, "[") // a subvolume follows in brackets
	return dev, err
}

// mountImage tries again: two mounts at once can race for one loop device.
func (m machine) mountImage(image, at, options string) (err error) {
	for range 5 {
		if _, err = tool("mount", "-o", "loop,"+options, m.path(image), at); err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

func (m machine) renewRoot(dev string) error {
	top := m.path("top")
	if err := os.MkdirAll(top, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, top, "btrfs", unix.MS_NOATIME, "subvolid=5"); err != nil {
		return err
	}
	defer unix.Unmount(top, 0)
	if exists(filepath.Join(top, ".keep-root")) {
		return nil
	}
	if err := unix.Unmount(m.path("root"), 0); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(top, "root"), filepath.Join(top, "old_roots", nextOldRoot(filepath.Join(top, "old_roots"), time.Now()))); err != nil {
		return fmt.Errorf("cannot archive the old root: %w", err)
	}
	if _, err := tool("btrfs", "-q", "subvolume", "snapshot", filepath.Join(top, "root-blank"), filepath.Join(top, "root")); err != nil {
		return err
	}
	return unix.Mount(dev, m.path("root"), "btrfs", unix.MS_NOATIME, btrfsOptions+",subvol=root")
}

// nextOldRoot counts: the clock may be wrong this early in a boot.
func nextOldRoot(dir string, now time.Time) string {
	old, _ := filepath.Glob(filepath.Join(dir, "root-[0-9]*"))
	sort.Strings(old)
	last := 0
	if len(old) > 0 {
		_, _ = fmt.Sscanf(filepath.Base(old[len(old)-1]), "root-%06d-", &last)
	}
	return fmt.Sprintf("root-%06d-%s", last+1, now.UTC().Format("20060102T150405Z"))
}

// giveHostKey puts in place, at the first boot, the key that known_hosts has.
func (m machine) giveHostKey() error {
	dir := filepath.Join(m.path("root"), "etc/ssh")
	if m.Layout == "ephemeral" {
		dir = filepath.Join(m.path("root"), "persist/etc/ssh")
	}
	key := filepath.Join(dir, "ssh_host_ed25519_key")
	if exists(key) {
		return nil
	}
	return tools([]string{"mkdir", "-p", dir}, []string{"cp", m.path("key"), key}, []string{"cp", m.path("key.pub"), key + ".pub"})
}

func (m machine) disassemble() error { return tools([]string{"umount", "-R", m.path("root")}) }

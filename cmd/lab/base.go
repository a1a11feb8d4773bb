package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// userland is what hosts are made of: Debian 13 has systemd 257 and Nix 2.26.
var userland = []string{
	"systemd-sysv", "dbus", "udev", "kmod", "openssh-server", "btrfs-progs", "iproute2", "sudo", "nix-bin", "procps",
	"ca-certificates", "nftables", "busybox-static", "curl", "python3", "libnss-myhostname", "prometheus-node-exporter",
}

// recipe names all that decides what a userland is; its digest names the cache.
func recipe() []string {
	return append([]string{"trixie", "minbase", "1"}, userland...)
}

// base makes what all labs of this recipe share, once, and the images that a
// lab of this spec starts from.
func (l lab) base(s spec) error {
	if err := os.MkdirAll(l.home, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(l.home, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if !exists(filepath.Join(l.home, "userland.ok")) {
		if err := l.makeUserland(); err != nil {
			return err
		}
	}
	for _, system := range s.systems() {
		if err := l.image(s, system).ensure(); err != nil {
			return err
		}
	}
	return nil
}

func (s spec) systems() []string {
	var systems []string
	for _, h := range s.Hosts {
		systems = append(systems, h.System)
	}
	return systems
}

// lock waits for other processes that make the same thing.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

func (l lab) makeUserland() error {
	tree := filepath.Join(l.home, "userland")
	if err := os.RemoveAll(tree); err != nil { // of a run that was stopped half-way
		return err
	}
	steps := []func() error{
		func() error { return debootstrap(tree) },
		func() error { return l.makeNix(tree) },
		l.makeKey,
		func() error { return l.withStore("_store") },
		func() error { return os.WriteFile(filepath.Join(l.home, "userland.ok"), nil, 0o644) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func debootstrap(tree string) error {
	args := []string{"--quiet", "--variant=minbase", "--format=directory", "--include=" + strings.Join(userland, ",")}
	for _, p := range []string{"man", "locale", "doc"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+p+"/*")
	}
	if _, err := tool("mmdebstrap", append(args, "trixie", tree)...); err != nil {
		return fmt.Errorf("%w\n  mmdebstrap needs Debian's mirror and the keyring: apt-get install -y debian-archive-keyring", err)
	}
	// What belongs to one machine, or to an installer, is not part of a system.
	const clean = `cd "$1"; rm -rf dev/* var/cache/* var/log/* var/lib/apt var/lib/dpkg/info etc/machine-id etc/hostname etc/resolv.conf etc/ssh/ssh_host_*
		grep -q ^nixbld: etc/group || chroot . groupadd -r nixbld`
	_, err := tool("sh", "-euc", clean, "sh", tree)
	return err
}

const nixConf = `experimental-features = nix-command flakes
substituters =
sandbox = false
build-users-group =
# Dozens of small builds: 0.3 s each with it.
fsync-metadata = false
`

// makeNix makes the userland's Nix run on this machine, whatever its libc. It
// is given its loader by name, since Nix starts itself again as a build hook.
func (l lab) makeNix(tree string) error {
	bin := filepath.Join(l.home, "nix/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	nix := filepath.Join(bin, "nix")
	err := tools(
		[]string{"cp", filepath.Join(tree, "usr/bin/nix"), nix},
		[]string{"patchelf", "--force-rpath", "--set-rpath", filepath.Join(tree, "usr/lib/x86_64-linux-gnu"),
			"--set-interpreter", filepath.Join(tree, "usr/lib64/ld-linux-x86-64.so.2"), nix},
	)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields("build env store instantiate copy-closure daemon collect-garbage hash") {
		link := filepath.Join(bin, "nix-"+name)
		_ = os.Remove(link)
		if err := os.Symlink("nix", link); err != nil {
			return err
		}
	}
	return writeFiles(l.home, map[string]string{"etc/nix.conf": nixConf})
}

func (l lab) makeKey() error {
	key := filepath.Join(l.home, "key")
	if exists(key) {
		return nil
	}
	_, err := tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key)
	return err
}

// withStore runs a hidden command of this program in a mount namespace of its
// own, where the lab's store is /nix.
func (l lab) withStore(args ...string) error {
	if err := os.MkdirAll(filepath.Join(l.home, "store"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll("/nix", 0o755); err != nil { // where it will be mounted
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = l.env()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// mountStore is what such a hidden command does first.
func (l lab) mountStore() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot keep mounts to this namespace: %w", err)
	}
	if err := unix.Mount(filepath.Join(l.home, "store"), "/nix", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount the lab's store on /nix: %w", err)
	}
	return nil
}

// addUserland puts the userland into the store as one fixed-output path. The
// flake names its hash, so evaluation stays pure and nothing is ever fetched.
func (l lab) addUserland() error {
	if err := l.mountStore(); err != nil {
		return err
	}
	staged := filepath.Join(l.home, "add")
	if err := tools([]string{"rm", "-rf", staged}, []string{"mkdir", staged},
		[]string{"cp", "-a", filepath.Join(l.home, "userland"), filepath.Join(staged, "debian-base")}); err != nil {
		return err
	}
	path, err := tool("nix-store", "--add-fixed", "--recursive", "sha256", filepath.Join(staged, "debian-base"))
	if err != nil {
		return err
	}
	sum, err := tool("nix", "hash", "path", "--base16", "--type", "sha256", path)
	if err != nil {
		return err
	}
	if err := writeFiles(l.home, map[string]string{"base.json": fmt.Sprintf("{\"name\":\"debian-base\",\"sha256\":%q}\n", sum)}); err != nil {
		return err
	}
	return tools([]string{"rm", "-rf", staged},
		[]string{"nix-store", "--add-root", filepath.Join(l.home, "base-root"), "--realise", path})
}

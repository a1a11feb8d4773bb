package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// userland is what hosts are made of: Debian 13 has systemd 257 and Nix 2.26.
var userland = []string{
	"systemd-sysv", "dbus", "udev", "kmod", "openssh-server", "btrfs-progs", "iproute2", "sudo", "nix-bin", "procps",
	"ca-certificates", "nftables", "busybox-static", "curl", "python3", "libnss-myhostname", "prometheus-node-exporter",
}

// recipe names all that decides what a userland is; its digest names the cache.
func recipe() []string { return append([]string{"trixie", "minbase", "1"}, userland...) }

// base makes what all labs of this recipe share, once, and the images that a
// lab of this spec starts from. Others that make the same thing wait.
func (l lab) base(s spec) error {
	if err := os.MkdirAll(l.home, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(l.home, "lock"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	if !exists(filepath.Join(l.home, "userland.ok")) {
		if err := l.inStore(nil, "base", strings.Join(userland, ",")); err != nil {
			return err
		}
	}
	for _, h := range s.Hosts {
		if err := l.makeImage(s, h.System); err != nil {
			return fmt.Errorf("cannot make the image of %s: %w", h.System, err)
		}
	}
	return nil
}

// olderVariant makes generation 1 differ from what the demo project deploys.
const olderVariant = `{"services":{"app":{"version":"1.0.0"}},"pantherOS":{"serverImpermanence":{"enable":false}}}`

// image is what a fresh host's disk and /boot are copied from: a name made of
// all that decides their content.
func (l lab) image(s spec, system string) string {
	s.Hosts, s.Backend = nil, ""
	options, _ := json.Marshal(s)
	parts := []string{string(options), system, agent.Launcher, string(runbooks.HostModule), bootFilesystem(), olderVariant}
	for _, from := range []string{"flake", "scripts/image.sh"} {
		_ = eachEmbedded(from, func(path string, data []byte) error {
			parts = append(parts, path, string(data))
			return nil
		})
	}
	return filepath.Join(l.home, "images", strings.Join([]string{system, s.Layout, s.Loader, digest(parts...)}, "-"))
}

// makeImage builds generation 1 and the file systems that hold it, unless they
// are there; they count as used now.
func (l lab) makeImage(s spec, system string) error {
	file, now := l.image(s, system), time.Now()
	if os.Chtimes(file+".ok", now, now) == nil {
		return nil
	}
	work, err := os.MkdirTemp("", "lab-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	flake := filepath.Join(work, "flake")
	if err := l.writeFlake(flake, s); err != nil {
		return err
	}
	if err := patchFile(filepath.Join(flake, "variants", system+".json"), olderVariant); err != nil {
		return err
	}
	vars := []string{"SIZE=" + s.Disk, "LAYOUT=" + s.Layout, "LAUNCHER="}
	if s.Launcher {
		vars[2] += agent.Launcher
	}
	return l.inStore(vars, "image", file, work, system)
}

package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// image is what a fresh host's disk and /boot are copied from.
type image struct {
	lab
	spec   spec
	system string
}

// subvolumes of the server-btrfs-impermanence plan, and where they are mounted.
var subvolumes = [][2]string{
	{"nix", "/nix"}, {"persist", "/persist"}, {"log", "/var/log"}, {"services", "/var/lib/services"},
	{"caddy", "/var/lib/caddy"}, {"backup", "/var/backup"}, {"containers", "/var/lib/containers"},
	{"cache", "/var/cache"}, {"tmp", "/var/tmp"}, {"snapshots", "/.snapshots"}, {"old_roots", "/btrfs_tmp/old_roots"},
}

const bootSize = "32M"

// olderVariant makes generation 1 differ from what the demo project deploys.
const olderVariant = `{"services":{"app":{"version":"1.0.0"}},"pantherOS":{"serverImpermanence":{"enable":false}}}`

func (l lab) image(s spec, system string) image { return image{l, s, system} }

// file is named after all that decides the image's content.
func (i image) file() string {
	s := i.spec
	s.Hosts, s.Backend = nil, ""
	options, _ := json.Marshal(s)
	parts := []string{string(options), i.system, agent.Launcher, bootSize, bootFilesystem(), olderVariant}
	_ = fs.WalkDir(embedded, "flake", func(path string, d fs.DirEntry, _ error) error {
		if !d.IsDir() {
			data, _ := embedded.ReadFile(path)
			parts = append(parts, path, string(data))
		}
		return nil
	})
	return filepath.Join(i.home, "images", strings.Join([]string{i.system, s.Layout, s.Loader, digest(parts...)}, "-"))
}

// ensure makes the image unless it is there, and marks it as used.
func (i image) ensure() error {
	file := i.file()
	if exists(file + ".ok") {
		now := time.Now()
		return os.Chtimes(file+".ok", now, now)
	}
	i.sweep()
	options, err := json.Marshal(i.spec)
	if err != nil {
		return err
	}
	if err := i.withStore("_image", string(options), i.system); err != nil {
		return fmt.Errorf("cannot make the image of %s: %w", i.system, err)
	}
	return os.WriteFile(file+".ok", nil, 0o644)
}

// sweep removes images that nobody has used for a day: each change of the
// flake or the launcher makes new ones.
func (i image) sweep() {
	marks, _ := filepath.Glob(filepath.Join(i.home, "images", "*.ok"))
	for _, mark := range marks {
		if info, err := os.Stat(mark); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			base := strings.TrimSuffix(mark, ".ok")
			for _, name := range []string{mark, base + ".img", base + ".boot"} {
				_ = os.Remove(name)
			}
		}
	}
}

// make builds generation 1 and the file systems that hold it; it runs in a
// mount namespace of its own.
func (i image) make() error {
	if err := i.mountStore(); err != nil {
		return err
	}
	top, err := i.build()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(i.home, "images"), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "lab-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	disk, boot := i.file()+".img", i.file()+".boot"
	launcher := ""
	if i.spec.Launcher {
		launcher = filepath.Join(work, "launcher")
		if err := os.WriteFile(launcher, []byte(agent.Launcher), 0o700); err != nil {
			return err
		}
	}
	names := []string{}
	for _, v := range subvolumes {
		names = append(names, v[0]+":"+v[1])
	}
	script, err := embedded.ReadFile("scripts/image.sh")
	if err != nil {
		return err
	}
	_, err = toolEnv([]string{
		"DISK=" + disk, "BOOT=" + boot, "SIZE=" + i.spec.Disk, "BOOT_SIZE=" + bootSize, "BOOT_FS=" + bootFilesystem(), "LAYOUT=" + i.spec.Layout,
		"TOP=" + top, "WORK=" + work, "LAUNCHER=" + launcher, "SUBVOLUMES=" + strings.Join(names, " "),
	}, "bash", "-euc", string(script))
	return err
}

// build makes the older system and keeps it from garbage collection.
func (i image) build() (string, error) {
	dir, err := os.MkdirTemp("", "lab-flake-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := i.writeFlake(dir, i.spec); err != nil {
		return "", err
	}
	if err := patchFile(filepath.Join(dir, "variants", i.system+".json"), olderVariant); err != nil {
		return "", err
	}
	attr := fmt.Sprintf("path:%s#nixosConfigurations.%s.config.system.build.toplevel", dir, i.system)
	return tool("nix", "build", attr, "--print-out-paths", "--out-link", filepath.Join(i.home, "roots", filepath.Base(i.file())))
}

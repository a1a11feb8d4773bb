package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

func unifiedCgroups() bool { return exists(cgroupRoot + "/cgroup.controllers") }

// cgroups is one directory per hierarchy of this machine. A host needs its own
// in each: two containers started from the same one share their payload's, and
// kill each other's units.
func (l lab) cgroups(parts ...string) []string {
	roots := []string{cgroupRoot}
	if !unifiedCgroups() {
		roots = nil
		for _, c := range []string{"systemd", "unified", "freezer", "memory"} {
			if exists(filepath.Join(cgroupRoot, c)) {
				roots = append(roots, filepath.Join(cgroupRoot, c))
			}
		}
	}
	own := filepath.Join(append([]string{"lab-" + l.id + "-" + digest(l.run)}, parts...)...)
	for i := range roots {
		roots[i] = filepath.Join(roots[i], own)
	}
	return roots
}

// joinCgroups puts this process, and so all it starts, into the host's own.
func (m machine) joinCgroups() error {
	for _, dir := range m.cgroups(m.Name) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// freeze stops every process of the host where it stands, or lets it go on.
func (m machine) freeze(frozen bool) error {
	file, word := "freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
	if unifiedCgroups() {
		file, word = "cgroup.freeze", map[bool]string{true: "1", false: "0"}[frozen]
	}
	for _, dir := range m.cgroups(m.Name) {
		if path := filepath.Join(dir, file); exists(path) {
			return os.WriteFile(path, []byte(word), 0o644)
		}
	}
	return nil
}

// removeCgroups takes away what a lab that is gone leaves behind, when the last
// of its processes are through with dying.
func (l lab) removeCgroups() error {
	return within(10*time.Second, func() bool {
		left := false
		for _, dir := range l.cgroups() {
			removeTree(dir)
			left = left || exists(dir)
		}
		return !left
	}, "processes of lab "+l.id+" did not end")
}

// removeTree removes directories only: files of a cgroup go with it.
func removeTree(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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

// removeCgroups takes away what a lab that is gone leaves behind.
func (l lab) removeCgroups() {
	for _, dir := range l.cgroups() {
		var all []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for i := len(all) - 1; i >= 0; i-- { // the deepest first
			_ = os.Remove(all[i])
		}
	}
}

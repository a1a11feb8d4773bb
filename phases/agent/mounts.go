package agent

import (
	"os"
	"strconv"
	"strings"
)

// Mount is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	Root    string // the part of the file system that is mounted
	Path    string
	FS      string
	Source  string
	ID      string
	Parent  string
	Dev     string // of the file system: not that of its files, on Btrfs
	Options string // of this mount
	Super   string // of the file system
	Shared  string // whom its changes go to
	Master  string // whom its changes come from
}

func readMounts(file string) []mount {
	data, _ := os.ReadFile(file)
	var list []mount
	for line := range strings.Lines(string(data)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) >= 5 && len(r) >= 2 {
			m := mount{Root: unescape(l[3]), Path: unescape(l[4]), FS: r[0], Source: unescape(r[1]), ID: l[0], Parent: l[1], Dev: l[2]}
			for _, field := range l[min(6, len(l)):] {
				kind, group, _ := strings.Cut(field, ":")
				switch kind {
				case "shared":
					m.Shared = group
				case "master":
					m.Master = group
				}
			}
			if len(l) > 5 {
				m.Options = l[5]
			}
			if len(r) > 2 {
				m.Super = r[2]
			}
			list = append(list, m)
		}
	}
	return list
}

// unescape undoes \040 and its like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountOf is the mount that a path lies in: the last one wins, it is on top.
func mountOf(mounts []mount, path string) mount {
	var best mount
	for _, m := range mounts {
		if within(path, m.Path) && len(m.Path) >= len(best.Path) {
			best = m
		}
	}
	return best
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

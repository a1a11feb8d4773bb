package nix

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// Survey is what a host runs, as far as any user may see it: its closure, its
// unit files and the kernel it booted. Empty parts could not be read.
type Survey struct {
	Closure Closure
	Units   map[string]string // unit file → sha256 of its content
	Booted  map[string]string // kernel, initrd, kernel-modules → store path
}

const surveyScript = `
for k in kernel initrd kernel-modules; do echo "booted $k $(readlink -f /run/booted-system/$k 2>/dev/null)"; done
(cd /run/current-system/etc/systemd/system 2>/dev/null && find -L . -type f -name '*.*' -exec sha256sum {} + 2>/dev/null) | sed 's/^/unit /'
echo closure
nix --extra-experimental-features 'nix-command' path-info -r --json /run/current-system 2>/dev/null || true`

// Look surveys a host with plain commands of the login user. It changes nothing.
func Look(ctx context.Context, h host.Runner) (Survey, error) {
	res, err := h.Run(ctx, host.Command{Args: []string{"sh", "-c", surveyScript}})
	if err != nil {
		return Survey{}, err
	}
	return parseSurvey(res.Stdout), nil
}

func parseSurvey(out []byte) Survey {
	s := Survey{Units: map[string]string{}, Booted: map[string]string{}}
	head, closure, _ := bytes.Cut(out, []byte("\nclosure\n"))
	if c, err := parsePathInfo(closure); err == nil && len(c) > 0 {
		s.Closure = c
	}
	sc := bufio.NewScanner(bytes.NewReader(head))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 3 && f[0] == "booted":
			s.Booted[f[1]] = f[2]
		case len(f) == 3 && f[0] == "unit":
			s.Units[strings.TrimPrefix(f[2], "./")] = f[1]
		}
	}
	return s
}

// UnitDiff is what a switch would do with units, computed from both systems'
// unit files. systemd may do more: what a unit pulls in is not listed.
type UnitDiff struct {
	Stop    []string `json:"stop,omitempty"`
	Start   []string `json:"start,omitempty"`
	Restart []string `json:"restart,omitempty"`
	Reload  []string `json:"reload,omitempty"`
	Keep    []string `json:"changed_but_kept,omitempty"`
	Unknown bool     `json:"unknown_until_run,omitempty"`
}

// Empty tells whether nothing would be touched.
func (d UnitDiff) Empty() bool {
	return len(d.Stop)+len(d.Start)+len(d.Restart)+len(d.Reload)+len(d.Keep) == 0 && !d.Unknown
}

// Units compares a host's unit files with those of a system that is valid on
// the controller.
func Units(old map[string]string, toplevel string) UnitDiff {
	dir := filepath.Join(toplevel, "etc/systemd/system")
	files, err := unitFiles(dir)
	if err != nil || len(old) == 0 {
		return UnitDiff{Unknown: true}
	}
	var d UnitDiff
	for name, content := range files {
		sum := sha256.Sum256(content)
		was, there := old[name]
		switch {
		case strings.Contains(name, "/"): // drop-ins and links below *.wants
		case !there:
			d.Start = append(d.Start, name)
		case was != hex.EncodeToString(sum[:]):
			d.changed(name, content)
		}
	}
	for name := range old {
		if _, there := files[name]; !there && !strings.Contains(name, "/") {
			d.Stop = append(d.Stop, name)
		}
	}
	for _, l := range [][]string{d.Stop, d.Start, d.Restart, d.Reload, d.Keep} {
		slices.Sort(l)
	}
	return d
}

// changed sorts a unit by what NixOS' X- settings say of it.
func (d *UnitDiff) changed(name string, content []byte) {
	switch {
	case has(content, "X-ReloadIfChanged", "true"):
		d.Reload = append(d.Reload, name)
	case has(content, "X-RestartIfChanged", "false"), !restartable(name):
		d.Keep = append(d.Keep, name)
	default:
		d.Restart = append(d.Restart, name)
	}
}

func restartable(name string) bool {
	switch filepath.Ext(name) {
	case ".target", ".slice":
		return false
	}
	return true
}

func has(content []byte, key, value string) bool {
	for line := range bytes.Lines(content) {
		k, v, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), key) && strings.EqualFold(strings.TrimSpace(v), value) {
			return true
		}
	}
	return false
}

// unitFiles reads the files below dir, following links, as `find -L` does.
func unitFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the units of %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || !strings.Contains(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[e.Name()] = b
	}
	return files, nil
}

// RebootReason says which of kernel, initrd and kernel modules differ from what
// the host booted: a switch activates the rest, these wait for a reboot.
func RebootReason(booted map[string]string, toplevel string) string {
	var differ []string
	for _, k := range []string{"kernel", "initrd", "kernel-modules"} {
		now, err := filepath.EvalSymlinks(filepath.Join(toplevel, k))
		if err == nil && booted[k] != "" && booted[k] != now {
			differ = append(differ, k)
		}
	}
	return strings.Join(differ, ", ")
}

// BootBytes is what a boot entry of the system adds on /boot. What the host
// booted is there already.
func BootBytes(booted map[string]string, toplevel string) int64 {
	var sum int64
	for _, k := range []string{"kernel", "initrd"} {
		path, err := filepath.EvalSymlinks(filepath.Join(toplevel, k))
		if err != nil || path == booted[k] {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// Sources lists the .nix files of a project's folder, without hidden folders
// and result links.
func Sources(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != dir && strings.HasPrefix(e.Name(), ".") {
			return filepath.SkipDir
		}
		if e.Type().IsRegular() && filepath.Ext(path) == ".nix" {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

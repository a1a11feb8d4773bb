package agent

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// menu is what a boot loader offers.
type menu struct {
	grub    bool
	dir     string // where its files lie; empty: no loader that can be read
	entries []choice
}

// choice is one entry, under the name by which it is chosen once.
type choice struct {
	id, system string
	trial      bool // listed by TrialProfile
}

// find is the id of the first entry that fits; what is empty fits all.
func (m menu) find(trial bool, system, id string) string {
	for _, c := range m.entries {
		if (c.trial || !trial) && (c.system == system || system == "") && (c.id == id || id == "") {
			return c.id
		}
	}
	return ""
}

// starts is the system that the next boot starts.
func (m menu) starts(b Boot) string {
	for _, c := range m.entries {
		if c.id == b.OneShot && b.OneShot != "" {
			return c.system
		}
	}
	return b.System
}

// loader reads what the boot loader does by itself, and what it offers.
func (a *agent) loader() (b Boot, m menu, err error) {
	if b, err = a.boot(); err == nil {
		m, err = a.menu()
	}
	return b, m, err
}

func (a *agent) menu() (menu, error) {
	for _, dir := range loaderDirs {
		if files, err := a.loaderFiles(a.host(dir)); !errors.Is(err, fs.ErrNotExist) {
			return menu{false, dir, systemdMenu(files)}, err
		}
	}
	for _, file := range grubFiles {
		if data, err := os.ReadFile(a.host(file)); !errors.Is(err, fs.ErrNotExist) {
			return menu{true, path.Dir(file), grubMenu(lines(string(data)))}, err
		}
	}
	return menu{}, nil
}

// systemdMenu: NixOS puts the profile's name into the title.
func systemdMenu(files []bootFile) (list []choice) {
	for _, f := range files {
		if e := newEntry(f); f.name != "loader.conf" {
			list = append(list, choice{e.id, e.system, strings.Contains(value(f, "title", " "), "["+path.Base(TrialProfile)+"]")})
		}
	}
	return list
}

var submenu = regexp.MustCompile(`^\s*submenu\s+"([^"]*)"`)

// grubMenu: NixOS gives a profile a submenu, of which SUBMENU>NUMBER is an entry.
func grubMenu(text []string) (list []choice) {
	sub, entries, depth := "", 0, 0
	for _, l := range text {
		if m := submenu.FindStringSubmatch(l); m != nil {
			sub, entries, depth = m[1], 0, 0
		}
		if m := title.FindStringSubmatch(l); m != nil {
			c := choice{id: m[1]}
			if sub != "" {
				c.id, c.trial = sub+">"+strconv.Itoa(entries), strings.Contains(sub, "Profile '"+path.Base(TrialProfile)+"'")
			}
			list, entries = append(list, c), entries+1
		}
		if n := len(list); n > 0 && list[n-1].system == "" {
			list[n-1].system = initOf(l)
		}
		switch word := strings.TrimSpace(l); {
		case strings.HasSuffix(word, "{"):
			depth++
		case word == "}":
			if depth--; depth == 0 {
				sub = ""
			}
		}
	}
	return list
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// entry is what a boot loader starts.
type entry struct {
	name string
	init string
	keep bool // panther.keep_root: the root of this boot is the last one's
}

// chooseEntry plays the boot loader of a /boot that is mounted: it picks the
// entry that is due, and uses up a one-shot choice as firmware or GRUB does.
func chooseEntry(boot, loader string) (entry, error) {
	choose := chooseSystemdBoot
	if loader == "grub" {
		choose = chooseGrub
	}
	e, err := choose(boot)
	if err == nil && e.init == "" {
		err = fmt.Errorf("cannot boot %q: /boot has no such entry, or it names no init", e.name)
	}
	return e, err
}

func newEntry(name, options string) entry {
	e := entry{name: name}
	for _, word := range strings.Fields(options) {
		if v, ok := strings.CutPrefix(word, "init="); ok {
			e.init = v
		}
		e.keep = e.keep || word == "panther.keep_root"
	}
	return e
}

// chooseSystemdBoot: /boot/loader/oneshot stands for the EFI variable
// LoaderEntryOneShot, then comes loader.conf's default, then the newest entry.
func chooseSystemdBoot(boot string) (entry, error) {
	dir := filepath.Join(boot, "loader")
	names, _ := fs.Glob(os.DirFS(filepath.Join(dir, "entries")), "*.conf")
	if len(names) == 0 {
		return entry{}, errors.New("cannot boot: /boot/loader/entries is empty")
	}
	slices.SortFunc(names, newestFirst)
	wanted := []string{read(dir, "oneshot"), field(read(dir, "loader.conf"), "default"), "*"}
	if err := os.RemoveAll(filepath.Join(dir, "oneshot")); err != nil {
		return entry{}, fmt.Errorf("cannot use up the one-shot entry: %w", err)
	}
	name := ""
	for _, pattern := range wanted {
		i := slices.IndexFunc(names, func(n string) bool { ok, _ := path.Match(pattern, n); return ok })
		if name == "" && i >= 0 {
			name = names[i]
		}
	}
	return newEntry(name, field(read(dir, "entries", name), "options")), nil
}

// field is the value of a line "key value".
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == key {
			return strings.Join(words[1:], " ")
		}
	}
	return ""
}

// newestFirst puts generation-10 before generation-9.
func newestFirst(a, b string) int {
	return cmp.Or(slices.Compare(numbersIn(b), numbersIn(a)), strings.Compare(b, a))
}

func numbersIn(s string) []int {
	var ns []int
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(f)
		ns = append(ns, n)
	}
	return ns
}

// chooseGrub follows grubenv's next_entry once; where it leads nowhere, GRUB
// starts the first entry.
func chooseGrub(boot string) (entry, error) {
	entries := parseGrub(read(boot, "grub/grub.cfg"))
	next, err := takeNextEntry(filepath.Join(boot, "grub/grubenv"))
	if e, ok := entries[next]; ok {
		return e, err
	}
	return entries["0"], err
}

var grubHead = regexp.MustCompile(`^(menuentry|submenu)\s+"([^"]*)"`)

// parseGrub gives the entries of a grub.cfg, as NixOS writes it, by all paths
// that lead to them: titles or numbers, as in `NixOS - Profile 'deployer'>0`.
func parseGrub(text string) map[string]entry {
	type menu struct {
		paths []string
		items int
	}
	entries, stack := map[string]entry{}, []menu{{paths: []string{""}}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		top := &stack[len(stack)-1]
		switch head := grubHead.FindStringSubmatch(line); {
		case head != nil:
			item := menu{}
			for _, p := range top.paths {
				item.paths = append(item.paths, p+">"+head[2], p+">"+strconv.Itoa(top.items))
			}
			top.items++
			stack = append(stack, item)
		case line == "}" && len(stack) > 1:
			stack = stack[:len(stack)-1]
		case strings.HasPrefix(line, "linux "):
			for _, p := range top.paths {
				entries[strings.TrimPrefix(p, ">")] = newEntry(top.paths[0][1:], line)
			}
		}
	}
	return entries
}

// takeNextEntry clears next_entry as save_env does, in place, before anything
// is started.
func takeNextEntry(path string) (string, error) {
	kept, next := "", ""
	for line := range strings.Lines(read(path)) {
		if v, ok := strings.CutPrefix(line, "next_entry="); ok {
			next = strings.TrimSpace(v)
		} else if !strings.HasPrefix(line, "##") {
			kept += line
		}
	}
	if next == "" { // nor without a block
		return "", nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("cannot clear next_entry: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(kept + strings.Repeat("#", max(0, 1024-len(kept)))); err != nil {
		return "", fmt.Errorf("cannot clear next_entry: %w", err)
	}
	return next, f.Sync()
}

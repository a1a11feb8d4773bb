package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
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
	if loader == "grub" {
		return chooseGrub(boot)
	}
	return chooseSystemdBoot(boot)
}

// chooseSystemdBoot: /boot/loader/oneshot stands for the EFI variable
// LoaderEntryOneShot, then comes loader.conf's default, then the newest entry.
func chooseSystemdBoot(boot string) (entry, error) {
	files, _ := filepath.Glob(filepath.Join(boot, "loader/entries/*.conf"))
	if len(files) == 0 {
		return entry{}, errors.New("cannot boot: /boot/loader/entries is empty")
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	slices.SortFunc(names, func(a, b string) int { return naturalCompare(b, a) })
	oneShot := filepath.Join(boot, "loader/oneshot")
	wanted := []string{readTrimmed(oneShot), field(readTrimmed(filepath.Join(boot, "loader/loader.conf")), "default")}
	if err := os.Remove(oneShot); err != nil && !errors.Is(err, os.ErrNotExist) {
		return entry{}, fmt.Errorf("cannot use up the one-shot entry: %w", err)
	}
	name := names[0]
	for _, pattern := range wanted {
		i := slices.IndexFunc(names, func(n string) bool { ok, _ := path.Match(pattern, n); return ok && pattern != "" })
		if i >= 0 {
			name = names[i]
			break
		}
	}
	options := field(readTrimmed(filepath.Join(boot, "loader/entries", name)), "options")
	return parseOptions(name, options)
}

func parseOptions(name, options string) (entry, error) {
	e := entry{name: name}
	for _, word := range strings.Fields(options) {
		if v, ok := strings.CutPrefix(word, "init="); ok {
			e.init = v
		}
		e.keep = e.keep || word == "panther.keep_root"
	}
	if e.init == "" {
		return e, fmt.Errorf("cannot boot %s: it names no init", name)
	}
	return e, nil
}

func readTrimmed(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}

// field is the value of a line "key value".
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// naturalCompare puts generation-9 before generation-10.
func naturalCompare(a, b string) int {
	na, nb := numbersIn(a), numbersIn(b)
	if c := slices.Compare(na, nb); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func numbersIn(s string) []int {
	var ns []int
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(f)
		ns = append(ns, n)
	}
	return ns
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// grubItem is a menuentry, or a submenu with items of its own.
type grubItem struct {
	title string
	linux string // arguments of an entry's linux line
	items []*grubItem
}

var grubHead = regexp.MustCompile(`^(menuentry|submenu)\s+"([^"]*)"`)

// parseGrub reads the menu of a grub.cfg as NixOS writes it.
func parseGrub(text string) []*grubItem {
	root := &grubItem{}
	stack := []*grubItem{root}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		top := stack[len(stack)-1]
		switch m := grubHead.FindStringSubmatch(line); {
		case m != nil:
			item := &grubItem{title: m[2]}
			top.items = append(top.items, item)
			stack = append(stack, item)
		case line == "}" && len(stack) > 1:
			stack = stack[:len(stack)-1]
		case strings.HasPrefix(line, "linux "):
			top.linux = strings.TrimPrefix(line, "linux ")
		}
	}
	return root.items
}

// findGrub follows a path such as `NixOS - Profile 'deployer'>0`: titles or
// numbers from zero. Where it leads nowhere, GRUB starts the first entry.
func findGrub(items []*grubItem, path string) *grubItem {
	level := items
	var found *grubItem
	for part := range strings.SplitSeq(path, ">") {
		found = pickGrub(level, part)
		if found == nil {
			break
		}
		level = found.items
	}
	if found == nil || found.linux == "" {
		return items[0]
	}
	return found
}

func pickGrub(items []*grubItem, part string) *grubItem {
	for _, item := range items {
		if item.title == part {
			return item
		}
	}
	if n, err := strconv.Atoi(part); err == nil && n >= 0 && n < len(items) {
		return items[n]
	}
	return nil
}

// chooseGrub honours next_entry of grubenv once: it clears it as save_env does,
// in place, before anything is started.
func chooseGrub(boot string) (entry, error) {
	items := parseGrub(readTrimmed(filepath.Join(boot, "grub/grub.cfg")))
	if len(items) == 0 {
		return entry{}, errors.New("cannot boot: /boot/grub/grub.cfg has no entries")
	}
	next, err := takeNextEntry(filepath.Join(boot, "grub/grubenv"))
	if err != nil {
		return entry{}, err
	}
	item := findGrub(items, "0")
	if next != "" {
		item = findGrub(items, next)
	}
	return parseOptions(item.title, item.linux)
}

func takeNextEntry(path string) (string, error) {
	old, err := os.ReadFile(path)
	if err != nil {
		return "", nil // no block, no choice
	}
	next, kept := "", ""
	for line := range strings.Lines(string(old)) {
		if v, ok := strings.CutPrefix(line, "next_entry="); ok {
			next = strings.TrimSpace(v)
		} else if !strings.HasPrefix(line, "##") {
			kept += line
		}
	}
	if next == "" {
		return "", nil
	}
	block := kept + strings.Repeat("#", max(0, 1024-len(kept)))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("cannot clear next_entry: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(block), 0); err != nil {
		return "", fmt.Errorf("cannot clear next_entry: %w", err)
	}
	return next, f.Sync()
}

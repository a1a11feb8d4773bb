package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// bootFile is one file of a boot loader's configuration, as lines: whether the
// last line ends with a newline is no difference.
type bootFile struct {
	name  string
	lines []string
}

var (
	loaderDirs = []string{"/boot/loader", "/efi/loader", "/boot/efi/loader", "/boot/EFI/loader"}
	grubFiles  = []string{"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"}
)

// The boot loader interface's variables, which win over loader.conf:
// https://systemd.io/BOOT_LOADER_INTERFACE
const efiVariable = "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// boot reads what the boot loader does by itself. An error says that it could
// not be read; no loader at all is none.
func (a *agent) boot() (Boot, error) {
	for _, dir := range loaderDirs {
		if _, err := os.Stat(a.host(dir + "/loader.conf")); err == nil {
			files, err := a.loaderFiles(dir)
			b := systemdBoot(files, a.efi("LoaderEntryDefault"))
			b.OneShot = a.efi("LoaderEntryOneShot")
			return b, err
		} else if !os.IsNotExist(err) {
			return Boot{}, err
		}
	}
	for _, file := range grubFiles {
		data, err := os.ReadFile(a.host(file))
		if err == nil {
			b := grub(bootFile{path.Base(file), lines(string(data))})
			b.OneShot = grubNext(a.line(path.Dir(file) + "/grubenv"))
			return b, nil
		} else if !os.IsNotExist(err) {
			return Boot{}, err
		}
	}
	return Boot{}, nil
}

func (a *agent) loaderFiles(dir string) ([]bootFile, error) {
	names, err := filepath.Glob(a.host(dir) + "/entries/*.conf")
	if err != nil {
		return nil, err
	}
	var files []bootFile
	for _, name := range append([]string{a.host(dir) + "/loader.conf"}, names...) {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		rel, _ := filepath.Rel(a.host(dir), name)
		if len(data) > 0 { // so that the script, which sees lines, sees the same
			files = append(files, bootFile{rel, lines(string(data))})
		}
	}
	return files, nil
}

func (a *agent) efi(name string) string {
	data, err := os.ReadFile(a.host(fmt.Sprintf(efiVariable, name)))
	if err != nil || len(data) < 4 {
		return ""
	}
	var text []uint16
	for data = data[4:]; len(data) >= 2; data = data[2:] { // after four bytes of attributes
		text = append(text, binary.LittleEndian.Uint16(data))
	}
	return strings.TrimRight(string(utf16.Decode(text)), "\x00")
}

func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func digest(files []bootFile) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s\n%d\n%s\n", f.name, len(f.lines), strings.Join(f.lines, "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// entry is one boot loader entry (https://uapi-group.org/specifications/specs/boot_loader_specification).
type entry struct {
	id, sortKey, version, system string
	bad                          bool // boot counting: no tries left
}

// systemdBoot finds the default among the entries: the first in menu order that
// the pattern fits, else the first.
func systemdBoot(files []bootFile, override string) Boot {
	slices.SortFunc(files, func(x, y bootFile) int { return strings.Compare(x.name, y.name) })
	b := Boot{Loader: "systemd-boot", Digest: digest(files)}
	pattern := override
	var entries []entry
	for _, f := range files {
		if f.name == "loader.conf" {
			pattern = cmp.Or(pattern, value(f, "default"))
		} else {
			entries = append(entries, newEntry(f))
		}
	}
	if strings.HasPrefix(pattern, "@") || len(entries) == 0 { // @saved: only the firmware knows
		return b
	}
	slices.SortStableFunc(entries, menuOrder)
	pick := slices.IndexFunc(entries, func(e entry) bool { return e.fits(pattern) })
	e := entries[max(pick, 0)]
	b.Default, b.System = e.id, e.system
	return b
}

var tries = regexp.MustCompile(`\+([0-9]+)(-[0-9]+)?\.conf$`)

func newEntry(f bootFile) entry {
	e := entry{id: path.Base(f.name), sortKey: value(f, "sort-key"), version: value(f, "version")}
	if m := tries.FindStringSubmatch(e.id); m != nil {
		e.id, e.bad = strings.TrimSuffix(e.id, m[0])+".conf", m[1] == "0"
	}
	for _, l := range f.lines {
		if key, rest, _ := strings.Cut(strings.TrimSpace(l), " "); key == "options" && e.system == "" {
			e.system = initOf(rest)
		}
	}
	return e
}

func (e entry) fits(pattern string) bool {
	id, pattern := strings.ToLower(e.id), strings.ToLower(pattern)
	ok, _ := path.Match(pattern, id)
	bare, _ := path.Match(pattern, strings.TrimSuffix(id, ".conf"))
	return pattern != "" && (ok || bare)
}

func menuOrder(x, y entry) int {
	if x.bad != y.bad {
		return order(y.bad)
	}
	if (x.sortKey == "") != (y.sortKey == "") {
		return order(x.sortKey != "")
	}
	return cmp.Or(strings.Compare(x.sortKey, y.sortKey), natural(y.version, x.version), natural(y.id, x.id))
}

func order(first bool) int {
	if first {
		return -1
	}
	return 1
}

var parts = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// natural compares text with numbers in it: 9 before 10.
func natural(x, y string) int {
	return slices.CompareFunc(parts.FindAllString(x, -1), parts.FindAllString(y, -1), func(p, q string) int {
		if isNumber(p) && isNumber(q) {
			p, q = strings.TrimLeft(p, "0"), strings.TrimLeft(q, "0")
			return cmp.Or(len(p)-len(q), strings.Compare(p, q))
		}
		return strings.Compare(p, q)
	})
}

func isNumber(s string) bool { return s[0] >= '0' && s[0] <= '9' }

func value(f bootFile, key string) string {
	for _, l := range f.lines {
		if k, rest, ok := strings.Cut(strings.TrimSpace(l), " "); ok && k == key {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// initOf is the toplevel of init=TOPLEVEL/init on a kernel's command line.
func initOf(options string) string {
	for _, word := range strings.Fields(options) {
		if init, ok := strings.CutPrefix(word, "init="); ok {
			return strings.TrimSuffix(init, "/init")
		}
	}
	return ""
}

var title = regexp.MustCompile(`^\s*menuentry\s+["']([^"']*)["']`)

// grub reads the first entry: NixOS makes it the system that its installer was
// called with.
func grub(f bootFile) Boot {
	b := Boot{Loader: "grub", Digest: digest([]bootFile{f})}
	for _, l := range f.lines {
		if m := title.FindStringSubmatch(l); m != nil && b.Default == "" {
			b.Default = m[1]
		}
		if b.Default != "" && strings.Contains(l, "init=") {
			b.System = initOf(l)
			return b
		}
	}
	return b
}

func grubNext(env string) string {
	for line := range strings.Lines(env) {
		if next, ok := strings.CutPrefix(strings.TrimSpace(line), "next_entry="); ok {
			return next
		}
	}
	return ""
}

// doBoot makes a system the boot default by its own program, and reads it back:
// that program's exit code has lied (nixpkgs pull request 501155).
func (a *agent) doBoot(ctx context.Context, _ string, op Operation) (effect, error) {
	want := Boot{}
	if op.Boot != nil {
		want = *op.Boot
	}
	op.System = cmp.Or(op.System, want.System)
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	system := a.resolve(top)
	if is, err := a.boot(); err == nil && is.System == system && (want.Digest == "" || want.Digest == is.Digest) {
		return effect{already: true}, nil
	}
	e, err := a.doActivate(ctx, "", Operation{System: op.System, Special: op.Special, Action: "boot"})
	if err != nil {
		return effect{}, err
	}
	is, err := a.boot()
	switch {
	case err != nil:
		return e, fmt.Errorf("cannot read the boot loader back: %w", err)
	case is.Loader == "":
		e.message = "not verified: no boot loader that can be read was found"
	case is.System != system:
		return e, fmt.Errorf("the boot loader was written, but its default %q starts %s, not %s", is.Default, is.System, system)
	case want.Digest != "" && want.Digest != is.Digest:
		e.message = "the default is as wanted; other entries of the menu differ from before"
	}
	return e, nil
}

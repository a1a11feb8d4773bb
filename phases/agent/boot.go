package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
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
			files, err := a.loaderFiles(a.host(dir))
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
			next := bootFile{lines: strings.Split(a.line(path.Dir(file)+"/grubenv"), "\n")}
			b.OneShot = value(next, "next_entry", "=")
			return b, nil
		} else if !os.IsNotExist(err) {
			return Boot{}, err
		}
	}
	return Boot{}, nil
}

func (a *agent) loaderFiles(dir string) (files []bootFile, err error) {
	names, _ := filepath.Glob(dir + "/entries/*.conf")
	for _, name := range append([]string{dir + "/loader.conf"}, names...) {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		rel, _ := filepath.Rel(dir, name)
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

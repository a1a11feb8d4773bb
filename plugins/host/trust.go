package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// self is the running program: its path, and its digest, taken once.
var self = sync.OnceValues(func() (Spec, error) {
	path, err := os.Executable()
	if err != nil {
		return Spec{}, fmt.Errorf("cannot find the running program: %w", err)
	}
	if runtime.GOOS == "linux" {
		path = "/proc/self/exe" // still this very file when an upgrade has replaced what lies at its path
	}
	digest, err := Digest(path)
	return Spec{Path: path, SHA256: digest, own: true}, err
})

// Self is the Spec of a plugin that ships with deployer: the running program,
// called as `plugin-serve NAME` and pinned by its own digest.
func Self(name string) (Spec, error) {
	spec, err := self()
	spec.Name, spec.Args = name, []string{"plugin-serve", name}
	return spec, err
}

// Digest is the sha256 of a file, in hex.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// trusted refuses a program that somebody else could replace between the look
// at its digest and its start. The running program needs no such proof.
func trusted(spec Spec) (path string, err error) {
	if spec.own {
		return spec.Path, nil
	}
	if !filepath.IsAbs(spec.Path) {
		return "", &Error{Plugin: spec.Name, Code: "untrusted", Message: fmt.Sprintf("path %q is not absolute", spec.Path)}
	}
	path, err = filepath.EvalSymlinks(spec.Path)
	for at := path; err == nil; at = filepath.Dir(at) {
		message, hint, looked := loose(at, path)
		if message != "" {
			return "", &Error{Plugin: spec.Name, Code: "untrusted", Message: message, Hint: []string{hint}}
		}
		if err = looked; at == "/" {
			break
		}
	}
	if err != nil {
		return "", &Error{Plugin: spec.Name, Code: "untrusted", Message: fmt.Sprintf("cannot look at %s: %v", spec.Path, err)}
	}
	return path, nil
}

// loose says why at, the program itself or a folder above it, cannot be
// trusted: it must belong to root or to us and be writable by nobody else. A
// sticky folder further up (/tmp, /nix/store) is good enough: what is ours
// cannot be renamed there by others.
func loose(at, program string) (message, hint string, err error) {
	info, err := os.Lstat(at)
	if err != nil {
		return "", "", err
	}
	mode, uid := info.Mode(), int(info.Sys().(*syscall.Stat_t).Uid)
	sticky := mode&fs.ModeSticky != 0 && at != program && at != filepath.Dir(program)
	switch {
	case at == program && (!mode.IsRegular() || mode&0o111 == 0):
		return at + " is not an executable file", "chmod 755 " + at, nil
	case uid != 0 && uid != os.Getuid():
		return fmt.Sprintf("%s belongs to uid %d, who could replace the program", at, uid), "chown root " + at, nil
	case mode&0o022 != 0 && !sticky:
		return fmt.Sprintf("%s is writable by others (%s)", at, mode), "chmod go-w " + at, nil
	}
	return "", "", nil
}

// unpinned says how a program differs from what is pinned. go-plugin has
// refused it by then, without saying why.
func unpinned(spec Spec) error {
	got, err := Digest(spec.Path)
	if err != nil || strings.EqualFold(got, spec.SHA256) {
		return nil
	}
	e := &Error{Plugin: spec.Name, Code: "digest", Message: fmt.Sprintf("%s is not the program that deployer.yaml pins: it has sha256 %s, pinned is %s", spec.Path, got, spec.SHA256)}
	if spec.SHA256 == "" {
		e.Message = spec.Path + " is not pinned by a sha256"
	}
	e.Hint = []string{
		"if this program is the one that you mean, put into deployer.yaml under plugins:",
		fmt.Sprintf("  %s: {path: %s, sha256: %s}", spec.Name, spec.Path, got),
	}
	return e
}

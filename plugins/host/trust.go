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
// called as `plugin-serve NAME ARGS` and pinned by its own digest.
func Self(name string, args ...string) (Spec, error) {
	spec, err := self()
	spec.Name = name
	spec.Args = append([]string{"plugin-serve", name}, args...)
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
// at its digest and its start: it, and every folder above it, must belong to
// root or to us and be writable by nobody else. The running program needs no
// such proof.
func trusted(spec Spec) (path string, err error) {
	if spec.own {
		return spec.Path, nil
	}
	if !filepath.IsAbs(spec.Path) {
		return "", untrusted(spec, fmt.Sprintf("path %q is not absolute", spec.Path))
	}
	path, err = filepath.EvalSymlinks(spec.Path)
	if err != nil {
		return "", untrusted(spec, fmt.Sprintf("cannot find %s: %v", spec.Path, cause(err)))
	}
	for at := path; ; at = filepath.Dir(at) {
		if e := looseness(at, path); e != nil {
			e.Plugin = spec.Name
			return "", e
		}
		if at == filepath.Dir(at) {
			return path, nil
		}
	}
}

// looseness says why at, the program itself or a folder above it, cannot be
// trusted. A sticky folder further up (/tmp, /nix/store) is good enough: what
// is ours cannot be renamed there by others.
func looseness(at, program string) *Error {
	info, err := os.Lstat(at)
	if err != nil {
		return &Error{Code: "untrusted", Message: fmt.Sprintf("cannot look at %s: %v", at, cause(err))}
	}
	if at == program && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0) {
		return &Error{Code: "untrusted", Message: at + " is not an executable file", Hint: []string{"chmod 755 " + at}}
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != 0 && uid != os.Getuid() {
		return &Error{Code: "untrusted", Message: fmt.Sprintf("%s belongs to uid %d, who could replace the program", at, uid), Hint: []string{"chown root " + at}}
	}
	sticky := info.Mode()&fs.ModeSticky != 0 && at != program && at != filepath.Dir(program)
	if info.Mode()&0o022 != 0 && !sticky {
		return &Error{Code: "untrusted", Message: fmt.Sprintf("%s is writable by others (%s)", at, info.Mode()), Hint: []string{"chmod go-w " + at}}
	}
	return nil
}

// pinned compares digests before anything runs; go-plugin does so again.
func pinned(spec Spec) error {
	if spec.own {
		return nil
	}
	got, err := Digest(spec.Path)
	if err != nil {
		return untrusted(spec, fmt.Sprintf("cannot read %s: %v", spec.Path, cause(err)))
	}
	if strings.EqualFold(got, spec.SHA256) {
		return nil
	}
	e := &Error{Plugin: spec.Name, Code: "digest"}
	e.Message = fmt.Sprintf("%s is not the program that deployer.yaml pins: it has sha256 %s, pinned is %s", spec.Path, got, spec.SHA256)
	if spec.SHA256 == "" {
		e.Message = fmt.Sprintf("%s is not pinned by a sha256", spec.Path)
	}
	e.Hint = []string{
		"if this program is the one that you mean, put into deployer.yaml under plugins:",
		fmt.Sprintf("  %s: {path: %s, sha256: %s}", spec.Name, spec.Path, got),
	}
	return e
}

func untrusted(spec Spec, message string) *Error {
	return &Error{Plugin: spec.Name, Code: "untrusted", Message: message}
}

// cause is an error without the path that the message has already.
func cause(err error) error {
	if e, ok := err.(*fs.PathError); ok {
		return e.Err
	}
	return err
}

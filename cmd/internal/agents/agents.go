// Package agents finds the agent binary for a host's machine. Release builds
// (`make`, tag embedagents) carry the small static agent for amd64 and arm64; a
// plain `go build` puts itself on hosts of its own kind.
package agents

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
)

// Embedded implements phases.Agents.
type Embedded struct{}

// goarch names a machine, as `uname -m` does, in Go's words.
var goarch = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// For gives the agent for a machine.
func (Embedded) For(machine string) (digest string, open func() (io.ReadCloser, error), err error) {
	arch, ok := goarch[machine]
	if !ok {
		return "", nil, fmt.Errorf("there is no agent for %q hosts: x86_64 and aarch64 are supported", machine)
	}
	if digest, open, ok = embedded(arch); ok {
		return digest, open, nil
	}
	if arch != runtime.GOARCH {
		return "", nil, fmt.Errorf("this deployer was built without the agent for %s hosts: build it with `make`", machine)
	}
	return itself()
}

var selfDigest = sync.OnceValues(func() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
})

// itself is the running program, whose hidden verb `agent` is the same code.
func itself() (string, func() (io.ReadCloser, error), error) {
	digest, err := selfDigest()
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the running program: %w", err)
	}
	return digest, func() (io.ReadCloser, error) { return os.Open("/proc/self/exe") }, nil
}

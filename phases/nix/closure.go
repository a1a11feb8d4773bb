package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

// Closure is the store paths a path needs, itself too, with their sizes in bytes.
type Closure map[string]int64

// Closure lists the closure of a valid path on the controller.
func (n *Nix) Closure(ctx context.Context, path string) (Closure, error) {
	out, err := n.run(ctx, pathInfo(path)...)
	if err != nil {
		return nil, err
	}
	return parsePathInfo(out)
}

func pathInfo(path string) []string {
	return []string{"nix", "--extra-experimental-features", features, "path-info", "-r", "--json", path}
}

func parsePathInfo(b []byte) (Closure, error) {
	type info struct {
		Path    string `json:"path"`
		NarSize int64  `json:"narSize"`
	}
	c := Closure{}
	var byPath map[string]*info
	if json.Unmarshal(b, &byPath) == nil {
		for p, i := range byPath {
			if i != nil {
				c[p] = i.NarSize
			}
		}
		return c, nil
	}
	var list []info
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("cannot read what nix path-info printed: %w", err)
	}
	for _, i := range list {
		c[i.Path] = i.NarSize
	}
	return c, nil
}

// Missing is the size in bytes of what a host with closure old would receive.
func (c Closure) Missing(old Closure) int64 {
	var sum int64
	for p, size := range c {
		if _, there := old[p]; !there {
			sum += size
		}
	}
	return sum
}

// Target is a host as `nix copy` reaches it: the same address, jump hosts, key
// and known_hosts as deployer's own connection.
type Target interface {
	NixStoreURL() string
	NixSSHOpts() []string
}

// Copy copies the closure of path to a host. Hosts that are this machine have
// it already.
func (n *Nix) Copy(ctx context.Context, path string, to host.Host) error {
	t, ok := to.(Target)
	if !ok {
		return nil
	}
	_, err := n.exec(ctx, sshOpts(t), "nix", "--extra-experimental-features", features, "copy", "--to", t.NixStoreURL(), path)
	return err
}

func sshOpts(t Target) []string {
	return []string{"NIX_SSHOPTS=" + strings.Join(t.NixSSHOpts(), " ")}
}

// CopyDerivation copies what is needed to build on the host itself.
func (n *Nix) CopyDerivation(ctx context.Context, drv string, to host.Host) error {
	t, ok := to.(Target)
	if !ok {
		return nil
	}
	_, err := n.exec(ctx, sshOpts(t), "nix", "--extra-experimental-features", features, "copy", "--derivation", "--to", t.NixStoreURL(), drv)
	return err
}

// Item is one package of a Diff: its versions before and after.
type Item struct {
	Name  string   `json:"name"`
	Old   []string `json:"old"` // empty: was not there
	New   []string `json:"new"` // empty: goes
	Bytes int64    `json:"bytes"`
}

// Diff compares two closures by package, in the notation of `nix store diff-closures`.
type Diff struct {
	Items   []Item `json:"items"`
	Bytes   int64  `json:"bytes"` // growth
	Paths   int    `json:"paths"` // store paths that the host does not have
	Missing int64  `json:"missing_bytes"`
}

// Compare makes the Diff from old to new.
func Compare(old, new Closure) *Diff {
	type side struct {
		versions []string
		bytes    int64
	}
	count := func(c Closure) map[string]*side {
		m := map[string]*side{}
		for p, size := range c {
			name, version := split(p)
			s := m[name]
			if s == nil {
				s = &side{}
				m[name] = s
			}
			if !slices.Contains(s.versions, version) {
				s.versions = append(s.versions, version)
			}
			s.bytes += size
		}
		return m
	}
	a, b := count(old), count(new)
	d := &Diff{Missing: new.Missing(old)}
	for p := range new {
		if _, there := old[p]; !there {
			d.Paths++
		}
	}
	add := func(name string) {
		x, y := a[name], b[name]
		if x == nil {
			x = &side{}
		}
		if y == nil {
			y = &side{}
		}
		slices.Sort(x.versions)
		slices.Sort(y.versions)
		d.Bytes += y.bytes - x.bytes
		if !slices.Equal(x.versions, y.versions) || abs(y.bytes-x.bytes) >= 8<<10 {
			d.Items = append(d.Items, Item{Name: name, Old: x.versions, New: y.versions, Bytes: y.bytes - x.bytes})
		}
	}
	for name := range a {
		add(name)
	}
	for name := range b {
		if a[name] == nil {
			add(name)
		}
	}
	slices.SortFunc(d.Items, func(x, y Item) int { return strings.Compare(x.Name, y.Name) })
	return d
}

func abs(n int64) int64 { return max(n, -n) }

// split cuts /nix/store/<hash>-name-1.2.3 into name and version, as Nix does:
// the version starts at the first dash that a non-letter follows.
func split(path string) (name, version string) {
	base := path[strings.LastIndexByte(path, '/')+1:]
	if _, rest, ok := strings.Cut(base, "-"); ok {
		base = rest
	}
	for i := 0; i+1 < len(base); i++ {
		if base[i] == '-' && base[i+1] >= '0' && base[i+1] <= '9' {
			return base[:i], base[i+1:]
		}
	}
	return base, ""
}

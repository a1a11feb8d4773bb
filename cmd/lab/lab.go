package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// lab is one lab: what it shares with others of its kind, and its own run.
type lab struct {
	root string // cache of all recipes
	home string // of this recipe
	id   string
	run  string // of this lab
}

// spec is what `lab up` was told; a run keeps it as spec.json.
type spec struct {
	Backend  string `json:"backend"`
	Layout   string `json:"layout"` // ephemeral or plain
	Loader   string `json:"loader"`
	Disk     string `json:"disk"`
	Launcher bool   `json:"launcher"`
	Trust    bool   `json:"trust"` // deploy is in nix trusted-users
	Hosts    []host `json:"hosts"`
}

type host struct {
	Name    string `json:"name"`
	Index   int    `json:"index"`
	Address string `json:"address"`
	System  string `json:"system"` // nixosConfigurations.<system> of generation 1
}

const gateway = "10.77.0.1"

func defaultSpec() spec {
	return spec{Backend: "container", Layout: "ephemeral", Loader: "systemd-boot", Disk: "6G", Launcher: true, Trust: true}
}

func currentLab() lab {
	root := os.Getenv("LAB_HOME")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = "/var/cache"
		}
		root = filepath.Join(cache, "deployer-lab")
	}
	root, _ = filepath.Abs(root)
	id := os.Getenv("LAB_ID")
	if id == "" {
		id = "lab"
	}
	home := filepath.Join(root, digest(recipe()...))
	return lab{root: root, home: home, id: id, run: filepath.Join(home, "run", id)}
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}

var hostName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// withHosts gives each name its address and the system its first generation is.
func (s spec) withHosts(names []string) (spec, error) {
	if len(names) == 0 {
		names = []string{"staging", "production"}
	}
	for i, name := range names {
		if !hostName.MatchString(name) || slices.Contains(names[:i], name) {
			return s, fmt.Errorf("cannot name a host %q: names are lower case, start with a letter and are given once", name)
		}
		s.Hosts = append(s.Hosts, host{Name: name, Index: i + 1, Address: fmt.Sprintf("10.77.0.%d", 11+i), System: systemOf(name)})
	}
	return s, nil
}

func systemOf(name string) string {
	switch name {
	case "staging":
		return "hetzner-vps-staging"
	case "production":
		return "hetzner-vps"
	}
	return "shared"
}

func (l lab) spec() (spec, error) {
	var s spec
	data, err := os.ReadFile(filepath.Join(l.run, "spec.json"))
	if err != nil {
		return s, fmt.Errorf("lab %s is not up: start it with: lab up", l.id)
	}
	return s, json.Unmarshal(data, &s)
}

func (l lab) save(s spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.run, "spec.json"), data, 0o644)
}

// machine is a host of a lab that is up.
type machine struct {
	lab
	spec
	host
}

func (l lab) machine(name string) (machine, error) {
	s, err := l.spec()
	if err != nil {
		return machine{}, err
	}
	i := slices.IndexFunc(s.Hosts, func(h host) bool { return h.Name == name })
	if i < 0 {
		return machine{}, fmt.Errorf("lab %s has no host %q: see lab status", l.id, name)
	}
	return machine{l, s, s.Hosts[i]}, nil
}

func (m machine) path(name string) string { return filepath.Join(m.run, m.Name, name) }

// holder is the process every part of the lab dies with, as seen from outside.
func (l lab) holder() (int, bool) {
	data, err := os.ReadFile(filepath.Join(l.run, "pid"))
	if err != nil {
		return 0, false
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	// A number alone can belong to another process by now.
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid, strings.Contains(string(cmdline), "\x00_holder\x00"+l.run)
}

// inside reports whether this process is in the lab's namespaces already.
func (l lab) inside() bool {
	mine, err := os.Readlink("/proc/self/ns/mnt")
	data, readErr := os.ReadFile(filepath.Join(l.run, "namespace"))
	return err == nil && readErr == nil && mine == string(data)
}

// enter moves the calling goroutine into the lab.
func (l lab) enter() error {
	pid, up := l.holder()
	if !up {
		return fmt.Errorf("lab %s is not up: start it with: lab up", l.id)
	}
	return join(pid, "pid", "net", "mnt")
}

// within runs this program's own command line again inside the lab, if it is
// not there yet; it reports whether it has.
func (l lab) within() (bool, error) {
	if l.inside() {
		return false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return true, err
	}
	dir, _ := os.Getwd() // joining a mount namespace forgets it
	if err := l.enter(); err != nil {
		return true, err
	}
	return true, foreground(dir, l.env(), append([]string{self}, os.Args[1:]...)...)
}

// env is the environment of what runs in the lab.
func (l lab) env() []string {
	own := map[string]string{
		"PATH":           filepath.Join(l.home, "nix/bin") + ":" + os.Getenv("PATH"),
		"NIX_CONF_DIR":   filepath.Join(l.home, "etc"),
		"NIX_CACHE_HOME": filepath.Join(l.home, "nix/cache"), "NIX_STATE_HOME": filepath.Join(l.home, "nix/state"),
		"NIX_CONFIG_HOME": filepath.Join(l.home, "nix/config"), "NIX_DATA_HOME": filepath.Join(l.home, "nix/data"),
		"NIX_REMOTE": "", "LAB_HOME": l.root, "LAB_ID": l.id, "LAB_BIN": filepath.Join(l.run, "lab"), "DEPLOYER_LAB": "1",
	}
	if s, err := l.spec(); err == nil {
		own["LAB_HOSTS"] = strings.Join(s.names(), " ")
	}
	var env []string
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); own[k] == "" && k != "NIX_REMOTE" {
			env = append(env, kv)
		}
	}
	for k, v := range own {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

func (s spec) names() []string {
	var names []string
	for _, h := range s.Hosts {
		names = append(names, h.Name)
	}
	return names
}

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

func defaultSpec() spec {
	return spec{Backend: "container", Layout: "ephemeral", Loader: "systemd-boot", Disk: "6G", Launcher: true, Trust: true}
}

// module tells whether the hosts' systems import deployer-host.nix.
func (s spec) module() bool { return s.Launcher && s.Layout != "plain" }

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
	systems := map[string]string{"staging": "hetzner-vps-staging", "production": "hetzner-vps"}
	for i, name := range names {
		if !hostName.MatchString(name) || slices.Contains(names[:i], name) {
			return s, fmt.Errorf("cannot name a host %q: names are lower case, start with a letter and are given once", name)
		}
		h := host{Name: name, Index: i + 1, Address: fmt.Sprintf("10.77.0.%d", 11+i), System: "shared"}
		if system, ok := systems[name]; ok {
			h.System = system
		}
		s.Hosts = append(s.Hosts, h)
	}
	return s, nil
}

func (s spec) names() []string {
	var names []string
	for _, h := range s.Hosts {
		names = append(names, h.Name)
	}
	return names
}

func (l lab) spec() (spec, error) {
	var s spec
	text := read(l.run, "spec.json")
	if text == "" {
		return s, l.notUp()
	}
	return s, json.Unmarshal([]byte(text), &s)
}

func (l lab) notUp() error {
	return fmt.Errorf("lab %s is not up: start it with: lab up", l.id)
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
	i := slices.Index(s.names(), name)
	if i < 0 {
		return machine{}, fmt.Errorf("lab %s has no host %q: see lab status", l.id, name)
	}
	return machine{l, s, s.Hosts[i]}, nil
}

func (m machine) path(name string) string { return filepath.Join(m.run, m.Name, name) }

// holder is the process every part of the lab dies with, as seen from outside.
// A number alone can belong to another process by now.
func (l lab) holder() (pid int, up bool) {
	pid, _ = strconv.Atoi(read(l.run, "pid"))
	return pid, strings.Contains(read("/proc", strconv.Itoa(pid), "cmdline"), "\x00_holder\x00"+l.run+"\x00")
}

// inside reports whether this process is in the lab's namespaces already.
func (l lab) inside() bool {
	mine, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && mine == read(l.run, "namespace")
}

// env is the environment of what runs in the lab.
func (l lab) env() []string {
	env := append(os.Environ(),
		"PATH="+filepath.Join(l.home, "nix/bin")+":"+os.Getenv("PATH"), "NIX_CONF_DIR="+filepath.Join(l.home, "etc"),
		"LAB_HOME="+l.root, "LAB_ID="+l.id, "LAB_BIN="+filepath.Join(l.run, "lab"), "DEPLOYER_LAB=1")
	for _, kind := range []string{"cache", "state", "config", "data"} {
		env = append(env, "NIX_"+strings.ToUpper(kind)+"_HOME="+filepath.Join(l.home, "nix", kind))
	}
	if s, err := l.spec(); err == nil {
		env = append(env, "LAB_HOSTS="+strings.Join(s.names(), " "))
	}
	return env
}

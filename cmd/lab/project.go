package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// writeFlake writes the flake whose systems the hosts of a lab can run.
func (l lab) writeFlake(dir string, s spec) error {
	base, key := read(l.home, "base.json"), read(l.home, "key.pub")
	if base == "" || key == "" {
		return fmt.Errorf("there is no userland in %s: make it with: lab base", l.home)
	}
	if err := copyEmbedded("flake", dir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "base.json"), []byte(base+"\n")); err != nil {
		return err
	}
	module := filepath.Join(dir, "modules")
	if err := errors.Join(writeFile(filepath.Join(module, runbooks.HostModuleFile), runbooks.HostModule),
		writeFile(filepath.Join(module, runbooks.LauncherFile), []byte(agent.Launcher))); err != nil {
		return err
	}
	trusted := `"root"`
	if s.Trust {
		trusted += `,"deploy"`
	}
	return writeFile(filepath.Join(dir, "lab.json"), fmt.Appendf(nil, labFacts, s.Loader == "grub", s.module(), trusted, key))
}

// labFacts are the options that follow from how the lab was started.
const labFacts = `{
  "boot": {"loader": {"grub": {"enable": %t}}},
  "services": {"deployer-host": {"enable": %t}},
  "nix": {"settings": {"trusted-users": [%s]}},
  "users": {"users": {
    "root": {"openssh": {"authorizedKeys": {"keys": [%[4]q]}}},
    "deploy": {"openssh": {"authorizedKeys": {"keys": [%[4]q]}}}
  }}
}
`

func copyEmbedded(from, dir string) error {
	return eachEmbedded(from, func(path string, data []byte) error {
		name := strings.TrimPrefix(path, from+"/")
		to := filepath.Join(dir, name)
		if strings.HasPrefix(name, "variants/") && exists(to) {
			return nil // the user's by now
		}
		return writeFile(to, data)
	})
}

// project makes or changes a demo project: a clean git repository with the
// flake, deployer.yaml and each system's variant.
func (l lab) project(dir string, s spec, sets []string) error {
	for _, set := range sets {
		if name, patch, ok := strings.Cut(set, "="); !ok || !json.Valid([]byte(patch)) || !isSystem(name) {
			return fmt.Errorf("cannot use --set %s: it is NAME=JSON, NAME one of hetzner-vps-staging, hetzner-vps, shared", set)
		}
	}
	if err := l.writeFlake(dir, s); err != nil {
		return err
	}
	if err := copyEmbedded("project", dir); err != nil {
		return err
	}
	for _, set := range sets {
		name, patch, _ := strings.Cut(set, "=")
		if err := patchFile(filepath.Join(dir, "variants", name+".json"), patch); err != nil {
			return err
		}
	}
	if len(sets) == 0 {
		sets = []string{"the demo project"}
	}
	return l.sh("commit", dir, "hosts: "+strings.Join(sets, " "))
}

func isSystem(name string) bool {
	_, err := embedded.Open("flake/variants/" + name + ".json")
	return err == nil
}

func patchFile(path, patch string) error {
	var to, from any
	if err := json.Unmarshal([]byte(read(path)), &to); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if err := json.Unmarshal([]byte(patch), &from); err != nil {
		return err
	}
	return writeJSON(path, mergePatch(to, from))
}

type tree = map[string]any

// mergePatch is RFC 7396: objects merge, null removes, all else replaces.
func mergePatch(to, from any) any {
	patch, ok := from.(tree)
	if !ok {
		return from
	}
	result, ok := to.(tree)
	if !ok {
		result = tree{}
	}
	for k, v := range patch {
		if v == nil {
			delete(result, k)
		} else {
			result[k] = mergePatch(result[k], v)
		}
	}
	return result
}

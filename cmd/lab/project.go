package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed all:flake all:project scripts
var embedded embed.FS

// writeFlake writes the flake whose systems the hosts of a lab can run.
func (l lab) writeFlake(dir string, s spec) error {
	if err := copyEmbedded("flake", dir); err != nil {
		return err
	}
	base, err := os.ReadFile(filepath.Join(l.home, "base.json"))
	if err != nil {
		return fmt.Errorf("cannot read the userland's hash: %w\n  make it with: lab base", err)
	}
	key, err := os.ReadFile(filepath.Join(l.home, "key.pub"))
	if err != nil {
		return err
	}
	facts, err := json.MarshalIndent(labFacts(s, strings.TrimSpace(string(key))), "", "  ")
	if err != nil {
		return err
	}
	return writeFiles(dir, map[string]string{"base.json": string(base), "lab.json": string(facts) + "\n"})
}

type tree = map[string]any

// labFacts are the options that follow from how the lab was started.
func labFacts(s spec, key string) tree {
	trusted := []string{"root"}
	if s.Trust {
		trusted = append(trusted, "deploy")
	}
	user := tree{"openssh": tree{"authorizedKeys": tree{"keys": []string{key}}}}
	return tree{
		"boot":  tree{"loader": tree{"grub": tree{"enable": s.Loader == "grub"}}},
		"nix":   tree{"settings": tree{"trusted-users": trusted}},
		"users": tree{"users": tree{"root": user, "deploy": user}},
	}
}

func copyEmbedded(from, dir string) error {
	files := map[string]string{}
	err := fs.WalkDir(embedded, from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := embedded.ReadFile(path)
		// A variant that is there already is the user's.
		if name := strings.TrimPrefix(path, from+"/"); !strings.HasPrefix(name, "variants/") || !exists(filepath.Join(dir, name)) {
			files[name] = string(data)
		}
		return err
	})
	if err != nil {
		return err
	}
	return writeFiles(dir, files)
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
	return commit(dir, sets)
}

func isSystem(name string) bool {
	_, err := embedded.Open("flake/hosts/" + name + ".nix")
	return err == nil && name != "common"
}

func patchFile(path, patch string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var to, from any
	if err := json.Unmarshal(old, &to); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if err := json.Unmarshal([]byte(patch), &from); err != nil {
		return err
	}
	data, err := json.MarshalIndent(mergePatch(to, from), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

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
			continue
		}
		result[k] = mergePatch(result[k], v)
	}
	return result
}

func commit(dir string, sets []string) error {
	git := func(args ...string) (string, error) {
		return tool("git", append([]string{"-C", dir, "-c", "user.name=lab", "-c", "user.email=lab@localhost", "-c", "commit.gpgsign=false"}, args...)...)
	}
	if !exists(filepath.Join(dir, ".git")) {
		if _, err := git("init", "-q", "-b", "main"); err != nil {
			return err
		}
	}
	if _, err := git("add", "-A"); err != nil {
		return err
	}
	if _, err := git("diff", "--cached", "--quiet"); err == nil {
		return nil // nothing differs from the last commit
	}
	message := "hosts: " + strings.Join(sets, " ")
	if len(sets) == 0 {
		message = "hosts: the demo project"
	}
	_, err := git("commit", "-q", "--no-verify", "-m", message)
	return err
}

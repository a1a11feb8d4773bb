package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

const projectFile = `version: 1
flake: .

hosts:
  staging: {address: %s, user: deploy, system: hetzner-vps-staging}
  production: {address: %s, user: deploy, system: hetzner-vps}

snapshots:
  subvolumes:
    /persist: keep
    /var/lib/services: keep
    /var/lib/caddy: keep

checks:
  healthy: {http: "http://${host.address}:8080/healthz", status: 200, within: 3s, interval: 500ms}
  app: {unit: app.service, within: 3s}

notify:
  ops: {kind: file, path: notifications.jsonl, events: [run, rollback]}
`

// declared are the files that the test's runbook backs up on production. Every
// variant of a test changes them in another way: see meddle.
var declared = []string{"/etc/os-release", "/etc/hand.conf", "/etc/none.conf", "/persist/app.conf"}

// runbook is the one that tests run, `lab`, with checks and a monitor of theirs.
func runbook(checks, monitor string) string {
	if monitor != "" {
		monitor = "\n  - monitor: " + monitor + "\n"
	}
	return `version: 1
description: A runbook of the tests
phases:
  - backup:
      files: [flake.nix]
      host: {production: [` + strings.Join(declared, ", ") + `]}
  - build: {hosts: [staging, production]}
  - staging: {host: staging}
  - switch: {host: production, confirm_within: 5m}
  - validate:
      checks: [` + checks + `]` + monitor + "\n"
}

// systems commits other options of the two hosts' systems, as JSON; what was
// set before is forgotten.
func (s *site) systems(staging, production string) {
	s.Helper()
	for _, name := range []string{"hetzner-vps-staging", "hetzner-vps", "shared"} {
		s.write("variants/"+name+".json", `{"services":{"app":{"version":"1.1.0"}}}`)
	}
	labtest.Change(s.T, s.dir, map[string]string{
		"hetzner-vps-staging": deep(s.T, `{"networking":{"hostName":"`+string(s.staging)+`"}}`, staging),
		"hetzner-vps":         deep(s.T, `{"networking":{"hostName":"`+string(s.production)+`"}}`, production),
	})
	s.write("deployer.yaml", fmt.Sprintf(projectFile, s.staging, s.production))
	if _, err := os.Stat(filepath.Join(s.dir, "runbooks")); err != nil {
		s.write("runbooks/lab.yaml", runbook("app", ""))
	}
	s.commit()
}

// edit replaces parts of deployer.yaml: old, new, old, new …
func (s *site) edit(oldnew ...string) {
	s.Helper()
	path := filepath.Join(s.dir, "deployer.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !bytes.Contains(b, []byte(oldnew[i])) {
			s.Fatalf("deployer.yaml has no %q", oldnew[i])
		}
	}
	s.write("deployer.yaml", strings.NewReplacer(oldnew...).Replace(string(b)))
	s.commit()
}

// book sets the runbook `lab`.
func (s *site) book(text string) {
	s.Helper()
	s.write("runbooks/lab.yaml", text)
	s.commit()
}

func (s *site) write(name, content string) {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		s.Fatal(err)
	}
}

func (s *site) commit() {
	s.Helper()
	s.shell(0, "git add -A && { git diff --cached --quiet || git -c user.name=lab -c user.email=lab@localhost commit -q -m test; }")
}

// deep merges two JSON objects.
func deep(t *testing.T, texts ...string) string {
	t.Helper()
	var all map[string]any
	for _, text := range texts {
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = merged(all, m)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func merged(a, b map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		x, isA := out[k].(map[string]any)
		y, isB := v.(map[string]any)
		if isA && isB {
			v = merged(x, y)
		}
		out[k] = v
	}
	return out
}

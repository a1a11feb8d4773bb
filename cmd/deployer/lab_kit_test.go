package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// site is what one test works with: two hosts of the lab that no other test
// has now, a project that deploys to them, and a store of runs of its own.
//
// Tests run side by side, as many as the lab has pairs of hosts:
//
//	lab up staging production s2 p2
//	lab exec -- go test ./cmd/deployer -run Lab -parallel 2
type site struct {
	*testing.T
	pair
	dir   string // the project
	state string // XDG_STATE_HOME
}

// pair is two hosts; in deployer.yaml they are always staging and production.
type pair struct{ staging, production labtest.Host }

// used pairs get a fresh disk before the next test has them.
type slot struct {
	pair
	used bool
}

var slots = sync.OnceValue(func() chan slot {
	hosts := strings.Fields(os.Getenv("LAB_HOSTS"))
	free := make(chan slot, len(hosts)/2)
	for i := 0; i+1 < len(hosts); i += 2 {
		free <- slot{pair: pair{labtest.Host(hosts[i]), labtest.Host(hosts[i+1])}}
	}
	return free
})

// labKind is what the lab was started as.
type labKind struct {
	Loader          string
	Launcher, Trust bool
}

var usual = labKind{Loader: "systemd-boot", Launcher: true, Trust: true}

// needLab skips a test that wants hosts of another kind.
func needLab(t *testing.T, want labKind, flags string) {
	t.Helper()
	labtest.Need(t)
	b, err := os.ReadFile(filepath.Join(filepath.Dir(os.Getenv("LAB_BIN")), "spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	var is labKind
	if err := json.Unmarshal(b, &is); err != nil {
		t.Fatal(err)
	}
	switch why := "needs another lab: lab up " + flags; { // .ci/lab has one of each kind
	case is != want && os.Getenv("DEPLOYER_NO_SKIP") == "1":
		t.Fatal(why)
	case is != want:
		t.Skip(why)
	}
}

// newSite waits for two hosts as they were after their first boot.
func newSite(t *testing.T) *site { return newSiteIn(t, usual, "staging production") }

func newSiteIn(t *testing.T, want labKind, flags string) *site {
	t.Helper()
	needLab(t, want, flags)
	sl := <-slots()
	t.Cleanup(func() { sl.used = true; slots() <- sl })
	if sl.used || worn(t, sl.staging) || worn(t, sl.production) {
		labtest.Fresh(t, sl.staging, sl.production)
	}
	s := &site{T: t, pair: sl.pair, dir: filepath.Join(t.TempDir(), "infra"), state: t.TempDir()}
	s.systems("{}", "{}")
	return s
}

// worn tells whether somebody has deployed to a host of a lab that was up before.
func worn(t *testing.T, h labtest.Host) bool {
	return h.Enter(t, "ls -d /nix/var/deployer/runs /nix/var/nix/profiles/system-2-link 2>/dev/null || true") != ""
}

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
		"hetzner-vps-staging": patch(s.T, staging, `{"networking":{"hostName":"`+string(s.staging)+`"}}`),
		"hetzner-vps":         patch(s.T, production, `{"networking":{"hostName":"`+string(s.production)+`"}}`),
	})
	s.write("deployer.yaml", fmt.Sprintf(projectFile, s.staging, s.production))
	if _, err := os.Stat(filepath.Join(s.dir, "runbooks")); err != nil {
		s.write("runbooks/lab.yaml", runbook("app", ""))
	}
	s.commit()
}

// patch puts two JSON objects together, one level deep.
func patch(t *testing.T, a, b string) string {
	t.Helper()
	m := map[string]any{}
	for _, text := range []string{b, a} {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	out, _ := json.Marshal(m)
	return string(out)
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

// shell types something on the controller, in the project.
func (s *site) shell(want int, line string) string {
	s.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+s.state, "PATH="+filepath.Dir(binary(s.T))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if code := exitCode(s.T, err); code != want {
		s.Fatalf("exit %d, not %d: %s\n%s", code, want, line, out)
	}
	return string(out)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

// binary is the program under test: DEPLOYER_BIN, or what this checkout builds.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DEPLOYER_BIN"); path != "" {
		return path, nil
	}
	path, err := filepath.Abs("../../bin/lab-test/deployer")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build deployer: %w\n%s", err, out)
	}
	return path, nil
})

// result is how one invocation of deployer ended.
type result struct {
	line     string
	exit     int
	out, err string
}

// deployer runs it in the project and waits for its end.
func (s *site) deployer(args ...string) result {
	s.Helper()
	cmd, wait := s.start(args...)
	_ = cmd
	return wait()
}

// start begins it; wait gives how it ended.
func (s *site) start(args ...string) (*exec.Cmd, func() result) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	cmd := exec.CommandContext(ctx, binary(s.T), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+s.state, "NO_COLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		cancel()
		s.Fatal(err)
	}
	return cmd, func() result {
		s.Helper()
		defer cancel()
		err := cmd.Wait()
		r := result{"deployer " + strings.Join(args, " "), exitCode(s.T, err), out.String(), errs.String()}
		if ctx.Err() != nil {
			s.Fatalf("%s did not end\n%s%s", r.line, r.out, r.err)
		}
		return r
	}
}

// want runs deployer and wants an exit code.
func (s *site) want(exit int, args ...string) result {
	s.Helper()
	r := s.deployer(args...)
	if r.exit != exit {
		s.Fatalf("exit %d, not %d: %s\n%s%s%s", r.exit, exit, r.line, r.out, r.err, s.logTail())
	}
	return r
}

// run runs the runbook `lab` and gives what it left behind.
func (s *site) run(exit int, more ...string) *labRun {
	s.Helper()
	r := s.want(exit, append([]string{"run", "lab", "--yes"}, more...)...)
	rec := s.latest()
	rec.result = r
	return rec
}

// logTail is a help for whoever reads a failure.
func (s *site) logTail() string {
	dirs, _ := filepath.Glob(filepath.Join(s.state, "deployer", "*", "*", "output", "*"))
	var b strings.Builder
	for _, f := range dirs {
		text, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "---- %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-12):], "\n"))
	}
	return b.String()
}

// told is what deployer told a person: of a failure, all from where it is named.
func (r result) told() string {
	if i := strings.LastIndex("\n"+r.err, "\nerror: "); r.exit != 0 && i >= 0 {
		return r.err[i:]
	}
	return r.out + r.err
}

// says wants all of words in what a person was told.
func (s *site) says(r result, words ...string) {
	s.Helper()
	for _, w := range words {
		if !strings.Contains(r.told(), w) {
			s.Errorf("%s does not say %q:\n%s%s", r.line, w, r.out, r.err)
		}
	}
}

// hints are the lines that deployer printed to be typed next.
func (r result) hints() []string {
	var lines []string
	in := false
	for line := range strings.Lines(r.err) {
		line = strings.TrimRight(line, "\n")
		rest, first := strings.CutPrefix(line, " next: ")
		more, indented := strings.CutPrefix(line, "       ")
		switch {
		case first:
			in, lines = true, append(lines, rest)
		case in && indented:
			lines = append(lines, more)
		default:
			in = false
		}
	}
	return lines
}

// hint is the one printed line that has word in it.
func (s *site) hint(r result, word string) string {
	s.Helper()
	hints := r.hints()
	i := slices.IndexFunc(hints, func(h string) bool { return strings.Contains(h, word) })
	if i < 0 {
		s.Fatalf("%s prints no command with %q:\n%s", r.line, word, r.err)
	}
	return hints[i]
}

// look is all of a host that a rollback has to bring back.
type look struct {
	Facts labtest.Facts
	Boot  []string // sha256 of the boot loader's files, kernels and all
	Stat  []string // kind, mode and owner of the declared files
}

// look looks from inside, so that it works with the network cut.
func (s *site) look(h labtest.Host) look {
	s.Helper()
	script := `cd /boot && find loader grub EFI kernels -type f -exec sha256sum {} + 2>/dev/null | sort -k2; echo ---
		for f in ` + strings.Join(declared, " ") + `; do stat -c '%n %F %a %u:%g %N' "$f" 2>/dev/null || echo "$f -"; done`
	boot, stat, _ := strings.Cut(h.Enter(s.T, script), "---\n")
	return look{h.Facts(s.T, declared...), strings.Split(boot, "\n"), strings.Split(stat, "\n")}
}

// looks looks at both hosts; the function it gives back does so again and wants
// them to be the same.
func (s *site) looks() (same func()) {
	s.Helper()
	hosts := []labtest.Host{s.staging, s.production}
	before := map[labtest.Host]look{}
	for _, h := range hosts {
		before[h] = s.look(h)
	}
	return func() {
		s.Helper()
		for _, h := range hosts {
			if d := cmp.Diff(before[h], s.look(h)); d != "" {
				s.Errorf("%s is not what it was (-before +after):\n%s", h, d)
			}
		}
	}
}

// serves wants the application to answer with a version.
func (s *site) serves(h labtest.Host, version string) {
	s.Helper()
	if got := h.Enter(s.T, "curl -s http://localhost:8080/"); got != "lab-app "+version {
		s.Errorf("%s serves %q, not %s", h, got, version)
	}
}

func (s *site) equal(what string, got, want any) {
	s.Helper()
	if d := cmp.Diff(want, got); d != "" {
		s.Errorf("%s (-want +got):\n%s", what, d)
	}
}

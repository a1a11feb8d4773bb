package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	hostssh "github.com/hbohlen/deployer/phases/host/ssh"
	"github.com/hbohlen/deployer/state"
)

// TestBench prints what deployer costs as ratios to the bare thing, both sides
// measured in turn in one run: these machines are noisy, so no time is judged.
// `make bench` runs it.
func TestBench(t *testing.T) {
	if os.Getenv("DEPLOYER_BENCH") == "" {
		t.Skip("a measurement, not a test: make bench")
	}
	labtest.Need(t)
	b := newBench(t)
	for _, m := range []struct {
		name string
		run  func()
	}{{"steps", b.steps}, {"ansible", b.ansible}, {"switches", b.switches}, {"restores", b.restores}, {"guards", b.guards}, {"upload", b.upload}, {"startup", b.startup}, {"sets", b.sets}, {"down", b.down}} {
		if only := os.Getenv("DEPLOYER_BENCH"); only == "1" || only == m.name {
			m.run()
		}
	}
}

type bench struct {
	*testing.T
	dir, bin string
	systems  [2]string
	exit     int // that the next run ends with
}

const benchSwitch = `version: 1
phases:
  - build: {hosts: [production]}
  - switch: {host: production, confirm_within: 30m}
  - validate:
      checks: [%s]
`

func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: labtest.Project(t, nil)}
	var err error
	if b.bin, err = filepath.Abs("../../bin/deployer"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	commands := slices.Repeat([]string{"{command: [\"true\"]}"}, 20)
	b.write("twenty.yaml", fmt.Sprintf(benchSwitch, strings.Join(commands, ", ")))
	b.write("one.yaml", fmt.Sprintf(benchSwitch, "{unit: app.service, within: 20s}"))
	b.run("ssh", "-o", "BatchMode=yes", "root@production", "true")
	b.systems[0] = b.variant("2.0.1")
	b.systems[1] = b.variant("2.0.0")
	return b
}

func (b *bench) write(name, content string) {
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
}

// variant sets the app's version in a new commit and builds it.
func (b *bench) variant(version string) string {
	labtest.Change(b.T, b.dir, map[string]string{"hetzner-vps": `{"services":{"app":{"version":"` + version + `"}}}`})
	return labtest.Build(b.T, b.dir, "hetzner-vps")
}

func (b *bench) run(args ...string) string {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (b *bench) timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func ratio(ours, theirs []time.Duration) string {
	o, t := median(ours), median(theirs)
	return fmt.Sprintf("%8.1f ms / %8.1f ms = %.2f", ms(o), ms(t), float64(o)/float64(t))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *bench) say(format string, args ...any) { fmt.Printf("bench  "+format+"\n", args...) }

// events runs a runbook and returns its events.
func (b *bench) events(runbook string) []state.Record {
	into := filepath.Join(b.TempDir(), "events")
	cmd := exec.Command(b.bin, "run", runbook, "--yes", "--json-into", into)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); exitCode(b.T, err) != b.exit {
		b.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(into)
	if err != nil {
		b.Fatal(err)
	}
	var recs []state.Record
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var r state.Record
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			b.Fatal(err)
		}
		recs = append(recs, r)
	}
	return recs
}

// span is the time from the first to the last event that match.
func span(recs []state.Record, match func(state.Record) bool) (time.Duration, int) {
	var hit []state.Record
	for _, r := range recs {
		if match(r) {
			hit = append(hit, r)
		}
	}
	return hit[len(hit)-1].Time.Sub(hit[0].Time), len(hit)
}

func journalled(r state.Record) bool { return r.Kind.Journalled() }

const rounds = 7

// steps: 20 command steps, each run on the host and journalled, against 20
// execs over one open connection and as many bare fsynced appends.
func (b *bench) steps() {
	var ours, bare []time.Duration
	for i := range rounds {
		b.deployedBy(i)
		d, n := span(b.events("twenty.yaml"), func(r state.Record) bool {
			return journalled(r) && strings.HasPrefix(r.Step, "validate/command")
		})
		ours = append(ours, d)
		bare = append(bare, b.bareExecs(20, n))
	}
	b.say("20 command steps against 20 bare execs and as many fsynced appends:  %s  (at most 1.3)", ratio(ours, bare))
}

// deployedBy makes sure that the next run has something to switch to.
func (b *bench) deployedBy(i int) { b.variant([]string{"2.0.1", "2.0.0"}[i%2]) }

func (b *bench) bareExecs(execs, appends int) time.Duration {
	client := b.dial()
	defer client.Close()
	f, err := os.OpenFile(filepath.Join(os.Getenv("XDG_STATE_HOME"), "bare"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line := append(bytes.Repeat([]byte("x"), 399), '\n')
	return b.timed(func() {
		for range execs {
			s, err := client.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Run("true"); err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
		for range appends {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func (b *bench) dial() *ssh.Client {
	conf := map[string]string{}
	var key []byte
	for line := range strings.Lines(b.run("ssh", "-G", "root@production")) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		conf[k] = v
		if k == "identityfile" && key == nil {
			key, _ = os.ReadFile(strings.Replace(v, "~", "/root", 1))
		}
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	c, err := ssh.Dial("tcp", conf["hostname"]+":"+conf["port"], &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// ansible: the same 20 commands as 20 tasks. Our side counts a whole `status`
// too, for start-up, connection and a look at the host.
func (b *bench) ansible() {
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		b.Fatal("ansible-playbook is missing: apt-get install -y --no-install-recommends ansible-core")
	}
	b.write("inventory", "production ansible_user=root ansible_python_interpreter=/usr/bin/python3\n")
	b.write("ansible.cfg", "[ssh_connection]\npipelining = True\n[defaults]\nhost_key_checking = True\n")
	b.write("play.yaml", "- hosts: production\n  gather_facts: false\n  tasks:\n"+strings.Repeat("    - command: \"true\"\n", 20))
	var ours, theirs []time.Duration
	for i := range 3 {
		b.deployedBy(i + 1)
		d, _ := span(b.events("twenty.yaml"), func(r state.Record) bool {
			return journalled(r) && strings.HasPrefix(r.Step, "validate/command")
		})
		ours = append(ours, d+b.timed(func() { b.run(b.bin, "status") }))
		theirs = append(theirs, b.timed(func() { b.run("ansible-playbook", "-i", "inventory", "play.yaml") }))
	}
	b.say("20 tasks with ansible against 20 steps, start and connection included: %s times faster  (at least 10)", ratio(theirs, ours))
}

// switches: from the lock to the last commit step, the guard's confirmation,
// against the bare sequence with as many logins: four on either side. Ours are the
// connection of the run (made while planning, so it is timed apart and added), nix
// copy's, the one that judges and the one that confirms.
func (b *bench) switches() {
	var ours, bare []time.Duration
	for i := range rounds {
		b.deployedBy(i)
		d, _ := span(b.events("one.yaml"), func(r state.Record) bool {
			return journalled(r) && (strings.HasPrefix(r.Step, "switch/") || strings.HasPrefix(r.Step, "validate/"))
		})
		ours = append(ours, d+b.timed(b.login))
		next := b.variant([]string{"2.1.1", "2.1.0"}[i%2])
		bare = append(bare, b.timed(func() {
			b.run("nix", "copy", "--to", "ssh://root@production", next)
			b.run("ssh", "root@production", "nix-env -p /nix/var/nix/profiles/system --set "+next)
			b.run("ssh", "root@production", next+"/bin/switch-to-configuration switch")
			b.run("ssh", "root@production", "true")
		}))
	}
	b.say("switch and validate to the last commit step, with the guard, against copy + set + switch: %s  (at most 1.25)", ratio(ours, bare))
}

// login is the connection of a run: resolved, dialled, logged in.
func (b *bench) login() {
	h, err := hostssh.Dial(b.Context(), hostssh.Config{Name: "production", Address: "production", User: "deploy"})
	if err != nil {
		b.Fatal(err)
	}
	h.Close()
}

// startup: time and memory of a start beside an empty Go program's.
func (b *bench) startup() {
	b.write("empty.go", "package main\n\nfunc main() {}\n")
	b.run("go", "build", "-o", "empty", "empty.go")
	var ours, empty []time.Duration
	var oursKB, emptyKB int64
	for range 20 {
		d, kb := b.rusage(b.bin, "version")
		ours, oursKB = append(ours, d), max(oursKB, kb)
		d, kb = b.rusage(filepath.Join(b.dir, "empty"))
		empty, emptyKB = append(empty, d), max(emptyKB, kb)
	}
	b.say("start-up beside an empty Go program:  %s", ratio(ours, empty))
	b.say("resident memory beside an empty Go program:  %.1f MiB / %.1f MiB", float64(oursKB)/1024, float64(emptyKB)/1024)
	_, kb := b.rusage(b.bin, "status")
	b.say("resident memory of `status` with one host:  %.1f MiB", float64(kb)/1024)
}

// rusage asks time(1) for the memory, in KiB: what Go is told of a child counts
// the forked parent too.
func (b *bench) rusage(args ...string) (took time.Duration, kib int64) {
	took = b.timed(func() { b.run(args...) })
	said := filepath.Join(b.TempDir(), "kib")
	b.run(append([]string{"time", "-f", "%M", "-o", said}, args...)...)
	text, err := os.ReadFile(said)
	if err == nil {
		kib, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	if err != nil {
		b.Fatal(err)
	}
	return took, kib
}

package runbooks_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/runbooks"
)

func load(t *testing.T, dir, runbook string, vars map[string]string) (*runbooks.Project, *runbooks.Runbook) {
	t.Helper()
	p, rb, err := runbooks.Load(runbooks.Options{Project: dir, Runbook: runbook, Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	return p, rb
}

func TestTheExamplesLoad(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	if p.Dir != "testdata/project" || p.File != "testdata/project/deployer.yaml" {
		t.Errorf("project %s in %s", p.File, p.Dir)
	}
	prod := *p.Hosts["production"]
	prod.Pos = runbooks.Pos{}
	want := runbooks.Host{Name: "production", Address: "203.0.113.7", User: "deploy", System: "hetzner-vps", Zone: "Europe/Berlin", Build: "controller"}
	if diff := cmp.Diff(want, prod); diff != "" {
		t.Error(diff)
	}
	var kinds []string
	for _, ph := range rb.Phases {
		kinds = append(kinds, ph.Kind+" "+ph.Name)
	}
	if diff := cmp.Diff([]string{"gate ready", "backup backup", "build build", "staging staging", "window window", "switch switch", "validate validate", "monitor monitor"}, kinds); diff != "" {
		t.Error(diff)
	}
	if rb.Name != "production" || rb.File != "testdata/project/runbooks/production.yaml" || len(rb.Changed) != 0 {
		t.Errorf("%s of %s changed %v", rb.Name, rb.File, rb.Changed)
	}
}

func TestValuesOfTheExamples(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	if v := p.Snapshots.Subvolumes["/persist"]; v.Path != "/persist" || v.OnRollback != "keep" || v.Pos.Line == 0 {
		t.Errorf("/persist: %+v", v)
	}
	if got := rb.Phases[2].Build.Hosts; !cmp.Equal(got, []string{"staging", "production"}) {
		t.Errorf("build %v", got)
	}
	if w := rb.Phases[4].Window; w.Open != "sat 02:00-04:00 UTC" || !cmp.Equal(w.Announce, []time.Duration{24 * time.Hour, 15 * time.Minute}) {
		t.Errorf("window %+v", w)
	}
	if sw := rb.Phases[5].Switch; sw.Host != "production" || sw.ConfirmWithin != 3*time.Minute || sw.Reboot != "ask" {
		t.Errorf("switch %+v", sw)
	}
	m := rb.Phases[7].Monitor
	if m.For != 24*time.Hour || m.Every != time.Minute || m.RollbackWithin != time.Hour {
		t.Errorf("monitor %+v", m)
	}
	if r := m.Rules[0]; r.Check.Metric != "snapshot_last_success" || r.Check.Kind != "metric" || r.Check.When != "value != 1" || r.Do != "alert" {
		t.Errorf("rule %+v", r)
	}
	if r := m.Rules[3]; r.Check.Kind != "unit" || r.Check.Unit != "caddy.service" || r.Do != "rollback" {
		t.Errorf("rule %+v", r)
	}
}

// A check that is used by its name stands where it is used, with the values of
// deployer.yaml.
func TestANamedCheckIsACopy(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	healthy := rb.Phases[6].Validate.Checks[2]
	if healthy == p.Checks["healthy"] || healthy.Name != "healthy" || healthy.Successes != 3 || healthy.Within != time.Minute {
		t.Errorf("%+v", healthy)
	}
	if got := healthy.Pos.String(); got != "testdata/project/runbooks/production.yaml:42:11" {
		t.Errorf("at %s", got)
	}
}

func TestEveryCheckEnds(t *testing.T) {
	p, _ := load(t, "testdata/project", "production", nil)
	for name, c := range p.Checks {
		if c.Within <= 0 || c.Timeout <= 0 || c.Timeout > c.Within || c.Interval <= 0 || c.Successes < 1 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := p.Checks["disk"]; c.Within != 30*time.Second || c.Timeout != 10*time.Second || c.Interval != time.Second {
		t.Errorf("defaults: %+v", c)
	}
}

func TestAHostFillsItsNameIn(t *testing.T) {
	p, rb := load(t, "testdata/project", "production", nil)
	healthy := rb.Phases[6].Validate.Checks[2]
	for _, c := range []struct{ address, want string }{
		{"203.0.113.7", "https://203.0.113.7/healthz"},
		{"203.0.113.7:2222", "https://203.0.113.7/healthz"},
		{"[2001:db8::1]:22", "https://[2001:db8::1]/healthz"},
		{"2001:db8::1", "https://[2001:db8::1]/healthz"},
		{"local", "https://localhost/healthz"},
	} {
		if got := healthy.For(&runbooks.Host{Name: "h", Address: c.address}); got.HTTP != c.want {
			t.Errorf("%s: %s", c.address, got.HTTP)
		}
	}
	own := &runbooks.Check{Command: []string{"echo", "${host}", "${HOME}", "${host.address}", "${host.system}"}}
	got := own.For(p.Hosts["production"]).Command
	if !cmp.Equal(got, []string{"echo", "production", "${HOME}", "203.0.113.7", "hetzner-vps"}) || own.Command[1] != "${host}" {
		t.Errorf("%v of %v", got, own.Command)
	}
	if healthy.From != "controller" || rb.Phases[6].Validate.Checks[0].From != "host" {
		t.Error("a host's address is asked for from the wrong side")
	}
}

func TestVariablesAreFilledInBeforeTheTextMeansAnything(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), goodProject)
	write(t, filepath.Join(dir, "r.yaml"), `version: 1
vars: {env: pro, target: "${env}d", n: 2, within: 20s}
phases:
  - build: {}
  - switch: {host: "${target}"}
  - validate: {checks: [{command: "echo $${HOME} ${env} ${host}", successes: "${n}", within: "${within}"}]}
`)
	_, rb := load(t, dir, "r", map[string]string{"within": "25s", "n": "2"})
	c := rb.Phases[2].Validate.Checks[0]
	if rb.Phases[1].Switch.Host != "prod" || c.Successes != 2 || c.Within != 25*time.Second {
		t.Errorf("%+v", c)
	}
	if !cmp.Equal(c.Command, []string{"sh", "-c", "echo ${HOME} pro ${host}"}) {
		t.Errorf("%q", c.Command)
	}
	if diff := cmp.Diff(map[string]string{"within": "20s"}, rb.Changed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"env": "pro", "target": "prod", "n": "2", "within": "25s"}, rb.Vars); diff != "" {
		t.Error(diff)
	}
	_, _, err := runbooks.Load(runbooks.Options{Project: dir, Runbook: "r", Vars: map[string]string{"target": "prod}, reboot: auto"}})
	if err == nil || !strings.Contains(err.Error(), "no host `prod}, reboot: auto`") {
		t.Errorf("a value changed the structure: %v", err)
	}
}

func TestTheDigestIsOfTheFileAndTheVariables(t *testing.T) {
	_, a := load(t, "testdata/project", "production", nil)
	_, same := load(t, "testdata/project", "production", map[string]string{"burn_in": "24h"})
	_, other := load(t, "testdata/project", "production", map[string]string{"burn_in": "25h"})
	if a.Digest != same.Digest || a.Digest == other.Digest || len(a.Digest) != 64 {
		t.Errorf("%s, %s, %s", a.Digest, same.Digest, other.Digest)
	}
}

func TestWhereARunbookIsFound(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), strings.NewReplacer("stage:", "staging:", "prod:", "production:").Replace(goodProject))
	t.Chdir(t.TempDir())
	found := func(name, want string) {
		t.Helper()
		if _, rb := load(t, dir, name, nil); rb.File != want {
			t.Errorf("%s is %s, want %s", name, rb.File, want)
		}
	}
	found("production", "shipped:production.yaml")
	own := "version: 1\nphases: [build]\n"
	write(t, filepath.Join(dir, "production.yaml"), own)
	found("production", filepath.Join(dir, "production.yaml"))
	found("production.yaml", filepath.Join(dir, "production.yaml"))
	if err := os.Mkdir(filepath.Join(dir, "runbooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "runbooks", "production.yaml"), own)
	found("production", filepath.Join(dir, "runbooks", "production.yaml"))
	found("runbooks/production.yaml", filepath.Join(dir, "runbooks", "production.yaml"))
}

// The shipped runbook runs in every project that has the two hosts, asks for
// nothing that is not built, and needs nobody.
func TestTheShippedRunbookNeedsNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), "version: 1\nhosts:\n  staging: {address: s, system: a}\n  production: {address: p, system: b}\n")
	p, rb := load(t, dir, "production", map[string]string{"burn_in": "5m", "rollback_within": "2m"})
	if refused := p.Unbuilt(rb); len(refused) > 0 {
		t.Error(refused)
	}
	if len(rb.Phases) != 7 {
		t.Errorf("%d phases", len(rb.Phases))
	}
	for _, ph := range rb.Phases {
		if ph.Gate != nil {
			t.Error("a gate waits for somebody")
		}
	}
	if path, optional := runbooks.Optional(rb.Phases[0].Backup.Files[1]); path != "flake.lock" || !optional {
		t.Errorf("%s, %v", path, optional)
	}
	if diff := cmp.Diff([]string{"production"}, runbooks.Shipped()); diff != "" {
		t.Error(diff)
	}
	if _, err := runbooks.ShippedFile("../types"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestPhasesHaveNamesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), goodProject)
	write(t, filepath.Join(dir, "r.yaml"), `version: 1
phases:
  - backup: {files: [a]}
  - backup: second
    files: [b]
  - backup: second
    files: [c]
  - backup: {files: [d]}
  - edit: {files: {a: b}, commit: yes}
  - migrate
  - build
`)
	_, rb := load(t, dir, "r", nil)
	var names []string
	for _, ph := range rb.Phases {
		names = append(names, ph.Name)
	}
	if diff := cmp.Diff([]string{"backup", "second", "second-2", "backup-2", "edit", "migrate", "build"}, names); diff != "" {
		t.Error(diff)
	}
	if rb.Phases[2].Backup.Files[0] != "c" {
		t.Error("keys beside a name were not read")
	}
}

func TestABuildBuildsWhatIsChanged(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), goodProject)
	write(t, filepath.Join(dir, "r.yaml"), "version: 1\nphases: [build, {staging: {host: stage}}, {switch: {host: prod}}, validate]\n")
	_, rb := load(t, dir, "r", nil)
	if diff := cmp.Diff([]string{"stage", "prod"}, rb.Phases[0].Build.Hosts); diff != "" {
		t.Error(diff)
	}
}

func FuzzLoad(f *testing.F) {
	for _, path := range []string{"testdata/project/deployer.yaml", "testdata/project/runbooks/production.yaml", "production.yaml", "testdata/mistakes/deployer.yaml", "testdata/mistakes/runbooks/r.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &x [*x]\n<<: *x\n"))
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "deployer.yaml"), []byte(goodProject), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, o := range []runbooks.Options{{Project: dir, Runbook: file}, {Project: file, Runbook: "production"}} {
			p, rb, err := runbooks.Load(o)
			mistaken(t, err)
			if err == nil {
				p.Unbuilt(rb)
			}
		}
	})
}

// mistaken wants every error to be a list of mistakes in a file.
func mistaken(t *testing.T, err error) {
	t.Helper()
	var all *runbooks.Errors
	if err != nil && (!errors.As(err, &all) || len(all.List) == 0 || all.Detail() == "") {
		t.Errorf("%T: %v", err, err)
	}
}

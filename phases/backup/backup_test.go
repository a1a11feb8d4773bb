package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

func TestCompile(t *testing.T) {
	p := &runbooks.Phase{Backup: &runbooks.Backup{Files: []string{"a"}, Host: map[string][]string{"h2": {"/b"}, "h1": {"/a"}}}}
	steps, err := Compile(nil, p)
	var got []string
	for _, s := range steps {
		got = append(got, phases.Key("backup", s)+":"+string(phases.ClassOf(s)))
	}
	if want := []string{"backup/repository:idempotent", "backup/files@h1:idempotent", "backup/files@h2:idempotent"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("steps %q, %v", got, err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"flake.nix", "flake.lock", "hosts/a.nix", "hosts/b.nix"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		files []string
		want  []string
		fails string
	}{
		{[]string{"flake.nix", "flake.lock?"}, []string{"flake.lock", "flake.nix"}, ""},
		{[]string{"gone.nix?"}, nil, ""},
		{[]string{"hosts/*.nix", "hosts/a.nix"}, []string{"hosts/a.nix", "hosts/b.nix"}, ""},
		{[]string{"flake.nix", "gone.nix"}, nil, "cannot back up gone.nix: there is no such file in " + dir},
		{[]string{"[a"}, nil, `cannot read the pattern "[a": syntax error in pattern`},
	} {
		got, err := repository{tt.files}.find(dir)
		if !slices.Equal(got, tt.want) || tt.fails == "" && err != nil || tt.fails != "" && (err == nil || err.Error() != tt.fails) {
			t.Errorf("%q: %q, %v", tt.files, got, err)
		}
	}
	_, err := repository{[]string{"gone.nix"}}.find(dir)
	if f := phases.AsFailure(err); !slices.Equal(f.Hint, []string{"ls " + dir}) {
		t.Errorf("hint %q", f.Hint)
	}
}

type records struct{ list []state.Record }

func (r *records) Event(rec state.Record) { r.list = append(r.list, rec) }

// run runs steps as the engine does and gives the facts of each, by its key.
func run(t *testing.T, r *phases.Run, steps ...phases.Step) (map[string]json.RawMessage, *phases.Outcome) {
	seen := &records{}
	r.Phases = []phases.Compiled{{Name: "backup", Steps: steps}}
	o := (&phases.Runner{Run: r, Log: &phases.Log{Sinks: []phases.Sink{seen}}}).Execute(t.Context())
	facts := map[string]json.RawMessage{}
	for _, rec := range seen.list {
		if rec.Kind == state.StepDone {
			facts[rec.Step] = rec.Data
		}
	}
	return facts, o
}

func sum(content string) string {
	s := sha256.Sum256([]byte(content))
	return hex.EncodeToString(s[:])
}

func TestRepository(t *testing.T) {
	r, controller := phasetest.Run(phasetest.Make(t, "h1"))
	controller.OnArgs("git", "-C", r.Project.Dir, "rev-parse", "HEAD").Out("abc\n")
	controller.OnArgs("git", "-C", r.Project.Dir, "status", "--porcelain").Out(" M flake.nix\n?? new.nix\n")
	if err := os.WriteFile(filepath.Join(r.Project.Dir, "flake.nix"), []byte("{ }"), 0o644); err != nil {
		t.Fatal(err)
	}
	facts, o := run(t, r, repository{[]string{"flake.nix", "flake.lock?"}})
	want := `{"files":{"flake.nix":"` + sum("{ }") + `"},"revision":"abc","changes":[" M flake.nix","?? new.nix"]}`
	if got := string(facts["backup/repository"]); o.Exit != 0 || got != want {
		t.Errorf("exit %d, facts %s\nwant %s", o.Exit, got, want)
	}
	path := filepath.Join(r.Dir.Path, "files", "repository", "flake.nix")
	b, err := os.ReadFile(path)
	if info, _ := os.Stat(path); err != nil || string(b) != "{ }" || info.Mode().Perm() != 0o600 {
		t.Errorf("kept %q, %v", b, err)
	}
}

// A project without git has no revision; that is no failure.
func TestRepositoryWithoutGit(t *testing.T) {
	r, controller := phasetest.Run(phasetest.Make(t, "h1"))
	controller.On(hosttest.Prefix("git")).Reply(128, "", "fatal: not a git repository")
	facts, o := run(t, r, repository{})
	if got := string(facts["backup/repository"]); o.Exit != 0 || got != `{"files":{}}` {
		t.Errorf("exit %d, facts %s", o.Exit, got)
	}
}

func TestHostFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		m.With(func(w *phasetest.World) {
			w.Files["/etc/a"] = agent.File{Digest: sum("A"), Mode: 0o640, Content: []byte("A")}
		})
		r, _ := phasetest.Run(m)
		s := hostFiles{On: phases.On{Lane: "h1"}, paths: []string{"/etc/a", "/etc/gone"}}
		facts, o := run(t, r, s)
		var digests map[string]string
		if err := json.Unmarshal(facts["backup/files@h1"], &digests); err != nil || o.Exit != 0 || digests["/etc/a"] != sum("A") || digests["/etc/gone"] != "" {
			t.Errorf("exit %d, digests %v, %v", o.Exit, digests, err)
		}
		files := r.Lanes[0].Files
		if len(files) != 2 || files[0].Mode != 0o640 || string(files[0].Content) != "A" || files[1].Path != "/etc/gone" || files[1].Digest != "" {
			t.Errorf("for the recipe: %+v", files)
		}
		if b, err := os.ReadFile(filepath.Join(r.Dir.Path, "files", "h1", "etc", "a")); string(b) != "A" {
			t.Errorf("kept %q, %v", b, err)
		}
		m = phasetest.Make(t, "h1")
		r, _ = phasetest.Run(m)
		m.Handle(agent.OpFileGet, func(json.RawMessage) (any, error) {
			return nil, &agent.Error{Code: "invalid", Message: "cannot read /etc/a: it is larger than 4194304 bytes"}
		})
		if _, o := run(t, r, s); o.Exit != phases.ExitFailed || !strings.Contains(o.Failure.Error(), "it is larger than") {
			t.Errorf("exit %d: %v", o.Exit, o.Failure)
		}
	})
}

func TestPlan(t *testing.T) {
	r, _ := phasetest.Run(phasetest.Make(t, "h1"))
	env := &phases.Env{Run: r}
	if c, err := (repository{}).Plan(t.Context(), env); err != nil || c.Text != "keep a copy of 0 files with digests, and the checkout's state" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := (repository{[]string{"gone"}}).Plan(t.Context(), env); err == nil {
		t.Error("a missing file is planned with")
	}
	if c, _ := (hostFiles{paths: []string{"/a"}}).Plan(t.Context(), env); c.Text != "keep a copy of 1 file; a rollback puts them back" || !slices.Equal(c.Detail, []string{"/a"}) {
		t.Errorf("%+v", c)
	}
}

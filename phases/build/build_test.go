package build

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

var on = phases.On{Lane: "h1"}

func TestCompile(t *testing.T) {
	in := &phases.Inputs{Project: &runbooks.Project{Hosts: map[string]*runbooks.Host{"h1": {Build: "host"}, "h2": {}}}}
	for where, want := range map[string][]bool{"": {true, false}, "host": {true, true}, "controller": {true, false}} {
		steps, err := Compile(in, &runbooks.Phase{Build: &runbooks.Build{Hosts: []string{"h1", "h2"}, On: where}})
		if err != nil || len(steps) != 3 || steps[0].Name() != "parse" {
			t.Fatalf("%d steps, %v", len(steps), err)
		}
		for i, onHost := range want {
			if s := steps[i+1].(*system); s.onHost != onHost {
				t.Errorf("%q: %s builds on the host: %t", where, s.Lane, s.onHost)
			}
		}
	}
}

// evaluates makes a controller whose flake gives New for a machine, and whose
// closure has 100 MiB that the host does not have.
func evaluates(t *testing.T, kind string, machines ...*phasetest.Machine) (*phases.Run, *hosttest.Fake) {
	r, controller := phasetest.Run(machines...)
	for _, l := range r.Lanes {
		l.To = nix.System{}
	}
	controller.On(hosttest.Prefix("nix", "--extra-experimental-features", "nix-command flakes", "eval")).Out(`{"drv":"/nix/store/x.drv","out":"` + phasetest.New + `","kind":"` + kind + `"}`)
	controller.On(hosttest.Prefix("nix", "--extra-experimental-features", "nix-command flakes", "path-info")).Out(`{"` + phasetest.New + `":{"narSize":104857600},"` + phasetest.Old + `":{"narSize":9}}`)
	controller.On(hosttest.Prefix("nix-store"))
	for _, m := range machines {
		m.Fake.On(hosttest.Prefix("sh", "-c")).Out("closure\n\nclosure\n{\"" + phasetest.Old + "\":{\"narSize\":9}}")
	}
	return r, controller
}

func env(r *phases.Run, i int) *phases.Env { return &phases.Env{Run: r, Lane: r.Lanes[i]} }

func TestPlan(t *testing.T) {
	r, controller := evaluates(t, "x86_64-linux", phasetest.Make(t, "h1"))
	c, err := (&system{On: on}).Plan(t.Context(), env(r, 0))
	if err != nil || c.Text != "0000000…-nixos-system-new" || c.Nothing || c.Unknown || r.Lanes[0].To.Drv != "/nix/store/x.drv" {
		t.Errorf("%+v, %v, to %+v", c, err, r.Lanes[0].To)
	}
	if !slices.Contains(controller.Lines(), "nix-store --realise /nix/store/x.drv") {
		t.Errorf("not built: %q", controller.Lines())
	}
}

func TestPlanOnHost(t *testing.T) {
	r, controller := evaluates(t, "x86_64-linux", phasetest.Make(t, "h1"))
	c, err := (&system{On: on, onHost: true}).Plan(t.Context(), env(r, 0))
	if err != nil || c.Text != "build 0000000…-nixos-system-new on h1" || !c.Unknown || len(controller.Calls()) != 1 {
		t.Errorf("%+v, %v: %q", c, err, controller.Lines())
	}
}

func TestPlanUnchanged(t *testing.T) {
	r, controller := evaluates(t, "x86_64-linux", phasetest.Make(t, "h1"))
	f := &r.Lanes[0].Seen
	f.System, f.Profile.System, f.Boot.System = phasetest.New, phasetest.New, phasetest.New
	c, err := (&system{On: on}).Plan(t.Context(), env(r, 0))
	if err != nil || !c.Nothing || len(controller.Calls()) != 1 {
		t.Errorf("%+v, %v: %q", c, err, controller.Lines())
	}
}

// Hosts of one system are evaluated once, and each is asked whether it fits.
func TestSameSystemIsEvaluatedOnce(t *testing.T) {
	for arch, want := range map[string]string{"x86_64": "", "aarch64": "web is a x86_64 system, the host is aarch64"} {
		a, b := phasetest.Make(t, "h1"), phasetest.Make(t, "h2")
		r, controller := evaluates(t, "x86_64-linux", a, b)
		r.Lanes[0].Conf.System, r.Lanes[1].Conf.System, r.Lanes[1].Seen.Arch = "web", "web", arch
		_, first := (&system{On: on}).Plan(t.Context(), env(r, 0))
		_, second := (&system{On: phases.On{Lane: "h2"}}).Plan(t.Context(), env(r, 1))
		evals := 0
		for _, line := range controller.Lines() {
			if strings.Contains(line, " eval ") {
				evals++
			}
		}
		if first != nil || evals != 1 {
			t.Errorf("%d evaluations, %v", evals, first)
		}
		if want == "" && second != nil || want != "" && (second == nil || second.Error() != want || phases.AsFailure(second).Exit != phases.ExitPrecondition) {
			t.Errorf("the second host: %v, want %q", second, want)
		}
	}
}

func TestArch(t *testing.T) {
	for _, tt := range []struct{ kind, arch, want string }{
		{"x86_64-linux", "x86_64", ""},
		{"aarch64-linux", "x86_64", "h1 is a aarch64 system, the host is x86_64"},
		{"", "x86_64", ""}, // a command does not say what it prints
	} {
		r, _ := evaluates(t, tt.kind, phasetest.Make(t, "h1"))
		r.Lanes[0].Seen.Arch = tt.arch
		_, err := (&system{On: on}).Plan(t.Context(), env(r, 0))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want || phases.AsFailure(err).Exit != phases.ExitPrecondition) {
			t.Errorf("%s on %s: %v", tt.kind, tt.arch, err)
		}
	}
}

func TestEvaluationErrorShowsNix(t *testing.T) {
	m := phasetest.Make(t, "h1")
	r, controller := phasetest.Run(m)
	r.Lanes[0].To = nix.System{}
	controller.On(hosttest.Prefix("nix")).Reply(1, "", "error: attribute 'h1' missing\n  at flake.nix:3\n")
	_, err := (&system{On: on}).Plan(t.Context(), env(r, 0))
	f := phases.AsFailure(err)
	if f.Exit != phases.ExitFailed || f.Error() != "attribute 'h1' missing" || len(f.Output) != 2 || !strings.HasPrefix(f.Hint[0], "nix eval .#nixosConfigurations.h1.") {
		t.Errorf("%+v", f)
	}
	if err := nixFailure(io.EOF, "x"); !errors.Is(err, io.EOF) {
		t.Errorf("another error became %v", err)
	}
}

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		space []agent.Space
		want  string
	}{
		{"enough", []agent.Space{{Path: "/nix", Free: 133 * mib}, {Path: "/boot", Free: mib}}, ""},
		{"just not", []agent.Space{{Path: "/nix", Free: 132*mib - 1}}, "h1: /nix has 131 MiB free; the new system needs 100 MiB, and 32 MiB must stay free"},
		{"not known", nil, ""},
		{"another file system", []agent.Space{{Path: "/persist", Free: 0}}, ""},
		{"boot", []agent.Space{{Path: "/boot", Free: 255 << 10}}, "h1: /boot has 255 KiB free, a boot entry of the new system needs 256 KiB"},
		{"both", []agent.Space{{Path: "/nix"}, {Path: "/boot"}},
			"h1: /nix has 0 MiB free; the new system needs 100 MiB, and 32 MiB must stay free\nh1: /boot has 0 KiB free, a boot entry of the new system needs 256 KiB"},
	} {
		r, _ := evaluates(t, "x86_64-linux", phasetest.Make(t, "h1"))
		r.Lanes[0].Seen.Space = tt.space
		_, err := (&system{On: on}).Plan(t.Context(), env(r, 0))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want || phases.AsFailure(err).Exit != phases.ExitPrecondition) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A kernel that the host booted is on /boot already.
func TestBootRoomCountsWhatIsNew(t *testing.T) {
	top, store := t.TempDir(), t.TempDir()
	kernel := filepath.Join(store, "kernel")
	if err := errors.Join(os.WriteFile(kernel, make([]byte, 1<<20), 0o644), os.Symlink(kernel, filepath.Join(top, "kernel"))); err != nil {
		t.Fatal(err)
	}
	l := phases.NewLane(&runbooks.Host{Name: "h1", Address: "h1"}, nil)
	l.To.Out, l.Seen.Space = top, []agent.Space{{Path: "/boot", Free: 1 << 20}}
	if found := bootRoom(l); len(found) != 1 || found[0].What != "/boot has 1024 KiB free, a boot entry of the new system needs 1280 KiB" {
		t.Errorf("found %v", found)
	}
	l.Survey.Booted = map[string]string{"kernel": kernel}
	if found := bootRoom(l); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}

func TestDo(t *testing.T) {
	r, controller := phasetest.Run(phasetest.Make(t, "h1"))
	controller.OnArgs("nix-store", "--realise", phasetest.New, "--add-root", filepath.Join(r.Dir.Path, "result-h1")).Once()
	s := &system{On: on}
	if err := s.Do(t.Context(), env(r, 0)); err != nil {
		t.Error(err)
	}
	r.Lanes[0].To.Out = phasetest.Old
	var skip phases.Skip
	if err := s.Do(t.Context(), env(r, 0)); !errors.As(err, &skip) {
		t.Errorf("unchanged: %v", err)
	}
}

func TestBuildOnHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		r, controller := phasetest.Run(m)
		s := &system{On: on, onHost: true}
		if err := s.Do(t.Context(), env(r, 0)); err == nil || !strings.HasSuffix(err.Error(), "only a flake can be built there") {
			t.Errorf("without a derivation: %v", err)
		}
		r.Lanes[0].To.Drv = "/nix/store/x.drv"
		controller.On(hosttest.Prefix("nix", "--extra-experimental-features", "nix-command flakes", "copy", "--derivation"))
		code := 0
		m.Handle(agent.OpExec, func(args json.RawMessage) (any, error) {
			if !strings.Contains(string(args), `"nix-store","--realise","/nix/store/x.drv","--add-root","/nix/var/nix/gcroots/deployer-r1-build"`) {
				t.Errorf("ran %s", args)
			}
			return agent.ExecResult{Code: code, Stderr: []byte("error: builder failed\n")}, nil
		})
		if err := s.Do(t.Context(), env(r, 0)); err != nil {
			t.Error(err)
		}
		code = 1
		f := phases.AsFailure(s.Do(t.Context(), env(r, 0)))
		if f.Error() != "the build on the host ended with exit code 1" || !slices.Equal(f.Output, []string{"error: builder failed"}) {
			t.Errorf("%+v", f)
		}
	})
}

func TestParse(t *testing.T) {
	r, controller := phasetest.Run(phasetest.Make(t, "h1"))
	file := filepath.Join(r.Project.Dir, "flake.nix")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	rule := controller.OnArgs("nix-instantiate", "--parse", file)
	if c, err := (parse{}).Plan(t.Context(), env(r, 0)); err != nil || c.Text != "parse 1 .nix files" {
		t.Errorf("%+v, %v", c, err)
	}
	rule.Reply(1, "", "error: syntax error, unexpected '}'\n")
	err := parse{}.Do(t.Context(), env(r, 0))
	if f := phases.AsFailure(err); f.Error() != "syntax error, unexpected '}'" || len(f.Hint) != 1 {
		t.Errorf("%+v", f)
	}
}

// A flake in git does not see what git does not track.
func TestUntrackedFiles(t *testing.T) {
	for _, tt := range []struct {
		flake, out string
		code, want int
	}{
		{".", "new.nix\nsub/b.nix\n", 0, 1},
		{"./sub", "new.nix\n", 0, 1},
		{".", "", 0, 0},
		{".", "fatal: not a git repository", 128, 0},
		{"github:a/b", "new.nix\n", 0, 0},
		{"/nix/store/x", "new.nix\n", 0, 0},
	} {
		r, controller := phasetest.Run(phasetest.Make(t, "h1"))
		r.Project.Flake = tt.flake
		controller.On(func(c host.Command) bool { return c.Args[0] == "git" }).Reply(tt.code, tt.out, "")
		found := parse{}.Requires(t.Context(), env(r, 0))
		if len(found) != tt.want {
			t.Errorf("%s, %q: found %v", tt.flake, tt.out, found)
		}
		if tt.want > 0 && (!strings.Contains(found[0].What, "new.nix") || !strings.HasPrefix(found[0].Hint[0], "git -C "+r.Project.Dir+" add -N new.nix")) {
			t.Errorf("found %+v", found[0])
		}
	}
}

package nix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
)

const hash = "0000000000000000000000000000000a-"

func path(name string) string { return "/nix/store/" + hash + name }

// Nix before 2.19 prints a list, later ones an object by path.
func TestParsePathInfo(t *testing.T) {
	want := Closure{path("a-1"): 10, path("b"): 20}
	for name, in := range map[string]string{
		"list":           `[{"path":"` + path("a-1") + `","narSize":10,"valid":true},{"path":"` + path("b") + `","narSize":20}]`,
		"object":         `{"` + path("a-1") + `":{"narSize":10},"` + path("b") + `":{"narSize":20,"references":[]}}`,
		"an invalid one": `{"` + path("a-1") + `":{"narSize":10},"` + path("b") + `":{"narSize":20},"` + path("gone") + `":null}`,
	} {
		if got, err := parsePathInfo([]byte(in)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "error: no", `"text"`} {
		if c, err := parsePathInfo([]byte(bad)); err == nil || !strings.Contains(err.Error(), "cannot read what nix path-info printed") {
			t.Errorf("%q: %v, %v", bad, c, err)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][2]string{
		path("nginx-1.26.0"):              {"nginx", "1.26.0"},
		path("python3.12-requests-2.31"):  {"python3.12-requests", "2.31"},
		path("linux-6.6.30-modules"):      {"linux", "6.6.30-modules"},
		path("unit-nginx.service"):        {"unit-nginx.service", ""},
		path("nixos-system-web-24.05pre"): {"nixos-system-web", "24.05pre"},
		path("glibc-2.39-52-bin"):         {"glibc", "2.39-52-bin"},
		path("x-"):                        {"x-", ""},
		"/nix/store/plain":                {"plain", ""},
	} {
		if name, version := split(in); name != want[0] || version != want[1] {
			t.Errorf("%s: %q %q, want %q", in, name, version, want)
		}
	}
}

func TestCompare(t *testing.T) {
	old := Closure{path("a-1"): 100, path("b-2"): 50, path("gone-3"): 7, path("same-1"): 9, path("grown"): 1 << 20, path("multi-1"): 1}
	now := Closure{path("a-2"): 130, path("b-2"): 50, path("new-1"): 1000, path("same-1"): 9, "/nix/store/" + strings.Replace(hash, "a-", "b-", 1) + "grown": 2 << 20, path("multi-1"): 1, path("multi-2"): 2}
	d := Compare(old, now)
	want := []Item{
		{Name: "a", Old: []string{"1"}, New: []string{"2"}, Bytes: 30},
		{Name: "gone", Old: []string{"3"}, Bytes: -7},
		{Name: "grown", Old: []string{""}, New: []string{""}, Bytes: 1 << 20}, // same version, but 8 KiB or more
		{Name: "multi", Old: []string{"1"}, New: []string{"1", "2"}, Bytes: 2},
		{Name: "new", New: []string{"1"}, Bytes: 1000},
	}
	if !reflect.DeepEqual(d.Items, want) {
		t.Errorf("items %+v\nwant  %+v", d.Items, want)
	}
	if d.Bytes != (30-7)+(1<<20)+2+1000 || d.Paths != 4 || d.Missing != 130+1000+(2<<20)+2 {
		t.Errorf("grows by %d, %d paths, %d bytes", d.Bytes, d.Paths, d.Missing)
	}
	if d := Compare(old, old); len(d.Items) > 0 || d.Bytes != 0 || d.Missing != 0 || d.Paths != 0 {
		t.Errorf("the same differs: %+v", d)
	}
}

// toplevel makes a system with these unit files.
func toplevel(t *testing.T, units map[string]string) string {
	top := t.TempDir()
	dir := filepath.Join(top, "etc/systemd/system")
	if err := os.MkdirAll(filepath.Join(dir, "multi-user.target.wants"), 0o755); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	for name, content := range units { // as NixOS does: links into the store
		file := filepath.Join(store, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dir, "masked.service")); err != nil {
		t.Fatal(err)
	}
	return top
}

func digests(units map[string]string) map[string]string {
	out := map[string]string{}
	for name, content := range units {
		sum := sha256.Sum256([]byte(content))
		out[name] = hex.EncodeToString(sum[:])
	}
	return out
}

func TestUnits(t *testing.T) {
	old := digests(map[string]string{
		"same.service": "a", "changed.service": "a", "reloads.service": "a", "kept.service": "a", "graphical.target": "a", "gone.service": "a", "timer.timer": "a",
		"multi-user.target.wants/same.service": "a", "changed.service.d/overrides.conf": "a",
	})
	top := toplevel(t, map[string]string{
		"same.service": "a", "changed.service": "[Service]\nExecStart=/bin/b\n", "reloads.service": "[Unit]\nX-ReloadIfChanged=true\n",
		"kept.service": "[Unit]\nX-RestartIfChanged = false\n", "graphical.target": "b", "new.service": "b", "timer.timer": "b",
	})
	got := Units(old, top)
	want := UnitDiff{
		Stop: []string{"gone.service"}, Start: []string{"new.service"}, Restart: []string{"changed.service", "timer.timer"},
		Reload: []string{"reloads.service"}, Keep: []string{"graphical.target", "kept.service"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Empty() || !(UnitDiff{}).Empty() || (UnitDiff{Unknown: true}).Empty() {
		t.Error("empty is not what it should be")
	}
	if d := Units(nil, top); !d.Unknown {
		t.Errorf("a host whose units were not read: %+v", d)
	}
	if d := Units(old, t.TempDir()); !d.Unknown {
		t.Errorf("a system that is not here: %+v", d)
	}
}

// boots makes a system with a kernel and an initrd of 10 and 20 bytes.
func boots(t *testing.T) (top, kernel, initrd string) {
	top, store := t.TempDir(), t.TempDir()
	for name, size := range map[string]int{"kernel": 10, "initrd": 20} {
		if err := os.WriteFile(filepath.Join(store, name), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(store, name), filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	store, err := filepath.EvalSymlinks(store)
	if err != nil {
		t.Fatal(err)
	}
	return top, filepath.Join(store, "kernel"), filepath.Join(store, "initrd")
}

func TestRebootReasonAndBootBytes(t *testing.T) {
	top, kernel, initrd := boots(t)
	for _, tt := range []struct {
		booted map[string]string
		reason string
		bytes  int64
	}{
		{map[string]string{"kernel": kernel, "initrd": initrd}, "", 0},
		{map[string]string{"kernel": "/other", "initrd": initrd}, "kernel", 10},
		{map[string]string{"kernel": "/other", "initrd": "/other", "kernel-modules": "/other"}, "kernel, initrd", 30},
		{nil, "", 30}, // not known: no reason to reboot, and no reason to believe that it is there
	} {
		if got := RebootReason(tt.booted, top); got != tt.reason {
			t.Errorf("%v: reason %q, want %q", tt.booted, got, tt.reason)
		}
		if got := BootBytes(tt.booted, top); got != tt.bytes {
			t.Errorf("%v: %d bytes, want %d", tt.booted, got, tt.bytes)
		}
	}
	if got := BootBytes(nil, t.TempDir()); got != 0 {
		t.Errorf("a system without a kernel takes %d", got)
	}
}

func TestParseSurvey(t *testing.T) {
	s := parseSurvey([]byte("booted kernel /nix/store/k/bzImage\nbooted initrd \nunit abc  ./web.service\nunit def  ./multi-user.target.wants/web.service\nclosure\n{\"" + path("a") + "\":{\"narSize\":5}}\n"))
	want := Survey{
		Closure: Closure{path("a"): 5}, Booted: map[string]string{"kernel": "/nix/store/k/bzImage"},
		Units: map[string]string{"web.service": "abc", "multi-user.target.wants/web.service": "def"},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
	if s := parseSurvey([]byte("booted kernel \nclosure\n")); s.Closure != nil || len(s.Units) > 0 || len(s.Booted) > 0 {
		t.Errorf("a host that shows nothing: %+v", s)
	}
	f := hosttest.New(t, "h1")
	f.On(hosttest.Prefix("sh", "-c")).Error(io.EOF)
	if _, err := Look(t.Context(), f); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func controller(t *testing.T) (*Nix, *hosttest.Fake) {
	f := hosttest.New(t, "controller")
	return &Nix{Host: f, Dir: "/project"}, f
}

func TestEval(t *testing.T) {
	n, f := controller(t)
	f.On(hosttest.Prefix("nix")).Out(`{"drv":"/nix/store/x.drv","out":"/nix/store/x","kind":"aarch64-linux"}`)
	s, err := n.Eval(t.Context(), ".", "web.prod")
	if err != nil || s.Drv != "/nix/store/x.drv" || s.Out != "/nix/store/x" || s.Arch() != "aarch64" {
		t.Errorf("%+v, %v", s, err)
	}
	if got := f.Calls()[0].Args; got[5] != `/project#nixosConfigurations."web.prod".config.system.build.toplevel` {
		t.Errorf("evaluated %q", got)
	}
	if s, err := n.Eval(t.Context(), "/nix/store/y", "web"); err != nil || s.Out != "/nix/store/y" || s.Arch() != "" {
		t.Errorf("a store path: %+v, %v", s, err)
	}
	for ref, want := range map[string]string{"": "/project", ".": "/project", "./sub": "/project/sub", "../up": "/up", "github:a/b": "github:a/b", "/abs": "/abs"} {
		if got := n.ref(ref); got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
}

func TestEvalCommand(t *testing.T) {
	for out, fails := range map[string]string{
		"/nix/store/x\n":     "",
		"warning: hello\n":   "`build it` printed \"warning: hello\", want one store path",
		"/nix/store/x\ny\n":  "`build it` printed \"/nix/store/x\\ny\", want one store path",
		"/nix/store/x y\n\n": "`build it` printed \"/nix/store/x y\", want one store path",
	} {
		n, f := controller(t)
		f.OnArgs("sh", "-c", "build it").Out(out)
		s, err := n.Eval(t.Context(), "build it", "web")
		if fails == "" && (err != nil || s.Out != "/nix/store/x") || fails != "" && (err == nil || err.Error() != fails) {
			t.Errorf("%q: %+v, %v", out, s, err)
		}
		if env := f.Calls()[0].Env; !slices.Equal(env, []string{"DEPLOYER_SYSTEM=web"}) {
			t.Errorf("env %q", env)
		}
	}
}

// What Nix said last that is an error is the error; all of it is kept.
func TestError(t *testing.T) {
	for out, want := range map[string]string{
		"trace\nerror: attribute 'x' missing\n       at flake.nix:3\n": "attribute 'x' missing",
		"error:\n       … while calling\n\n       error: inner\n":      "inner",
		"something\n": "`nix-store --realise /nix/store/x` ended with exit code 1",
	} {
		n, f := controller(t)
		f.On(hosttest.Prefix("nix-store")).Reply(1, "", out)
		err := n.Build(t.Context(), System{Out: "/nix/store/x"})
		var ne *Error
		if !errors.As(err, &ne) || err.Error() != want || len(ne.Output) == 0 {
			t.Errorf("%q: %v", out, err)
		}
	}
	n, f := controller(t)
	f.On(hosttest.Prefix("nix-store")).Error(io.EOF)
	if err := n.Keep(t.Context(), "/nix/store/x", "link"); err == nil || err.Error() != "cannot run nix-store: EOF" {
		t.Errorf("got %v", err)
	}
}

func TestRevision(t *testing.T) {
	for out, want := range map[string]string{`{"revision":"abc"}`: "abc", `{"dirtyRevision":"abc-dirty"}`: "abc-dirty", `{}`: "", `?`: ""} {
		n, f := controller(t)
		f.On(hosttest.Prefix("nix")).Out(out)
		if got := n.Revision(t.Context(), "."); got != want {
			t.Errorf("%s: %q", out, got)
		}
	}
	n, _ := controller(t) // neither is asked for
	if n.Revision(t.Context(), "/nix/store/x") != "" || n.Revision(t.Context(), "build it") != "" {
		t.Error("a revision out of nothing")
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"flake.nix", "hosts/a.nix", ".git/x.nix", "notes.md", "sub/.direnv/y.nix"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755), os.WriteFile(filepath.Join(dir, f), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nix/store/x", filepath.Join(dir, "result.nix")); err != nil {
		t.Fatal(err)
	}
	got, err := Sources(dir)
	if want := []string{filepath.Join(dir, "flake.nix"), filepath.Join(dir, "hosts/a.nix")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

type remote struct{ host.Host }

func (remote) NixStoreURL() string  { return "ssh-ng://deploy@h1" }
func (remote) NixSSHOpts() []string { return []string{"-i", "key", "-p", "2222"} }

func TestCopy(t *testing.T) {
	n, f := controller(t)
	f.On(hosttest.Prefix("nix"))
	if err := n.Copy(t.Context(), "/nix/store/x", hosttest.New(t, "local")); err != nil || len(f.Calls()) > 0 {
		t.Errorf("to this machine: %v, ran %q", err, f.Lines())
	}
	for _, copy := range []func(context.Context, string, host.Host) error{n.Copy, n.CopyDerivation} {
		if err := copy(t.Context(), "/nix/store/x", remote{}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"nix --extra-experimental-features nix-command flakes copy --to ssh-ng://deploy@h1 /nix/store/x",
		"nix --extra-experimental-features nix-command flakes copy --derivation --to ssh-ng://deploy@h1 /nix/store/x",
	}
	if !slices.Equal(f.Lines(), want) || f.Calls()[0].Env[0] != "NIX_SSHOPTS=-i key -p 2222" {
		t.Errorf("ran %q with %q", f.Lines(), f.Calls()[0].Env)
	}
}

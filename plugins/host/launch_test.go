package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
)

func services() host.Services {
	return host.Services{Allow: []string{agent.OpDiscover, agent.OpSnapshot}}
}

func self(t *testing.T, name string) host.Spec {
	t.Helper()
	spec, err := host.Self(name)
	if err != nil {
		t.Fatal(err)
	}
	spec.RunDir = t.TempDir()
	return spec
}

func launch(t *testing.T, spec host.Spec, services host.Services) *host.Plugin {
	t.Helper()
	p, err := host.Launch(t.Context(), spec, services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func act(t *testing.T, p *host.Plugin, cue string) (string, error) {
	t.Helper()
	return p.Notify(t.Context(), host.Event{ID: "e", Title: cue})
}

func wants(t *testing.T, err error, code string, texts ...string) {
	t.Helper()
	var e *host.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is no *host.Error", err, err)
	}
	all := e.Error() + "\n" + strings.Join(e.Hint, "\n")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("%q does not say %q", all, text)
		}
	}
	if e.Code != code {
		t.Errorf("code %q, want %q: %s", e.Code, code, all)
	}
}

func TestAShippedPluginIsTheProgramItself(t *testing.T) {
	begin := time.Now()
	p := launch(t, self(t, "actor"), services())
	t.Logf("started and configured in %v", time.Since(begin))
	if info := p.Info(); info.Name != "actor" || info.Version != "1.2.3" || len(info.Capabilities) != 2 {
		t.Errorf("%+v", info)
	}
}

// program is a copy of the test binary at a path of its own.
func program(t *testing.T) host.Spec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	digest, derr := host.Digest(path)
	if err = errors.Join(err, derr, os.Chmod(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	return host.Spec{Name: "other", Path: path, Args: []string{"plugin-serve", "actor"}, SHA256: digest, RunDir: t.TempDir()}
}

func TestOnlyPinnedProgramsStart(t *testing.T) {
	spec := program(t)
	launch(t, spec, services())

	right := spec.SHA256
	spec.SHA256 = strings.Repeat("0", 64)
	_, err := host.Launch(t.Context(), spec, services())
	wants(t, err, "digest", right, spec.SHA256, fmt.Sprintf("other: {path: %s, sha256: %s}", spec.Path, right))
	spec.SHA256 = ""
	_, err = host.Launch(t.Context(), spec, services())
	wants(t, err, "digest", "is not pinned", right)
}

func TestNoProgramStartsThatOthersCouldReplace(t *testing.T) {
	spec := program(t)
	dir := filepath.Dir(spec.Path)
	for _, c := range []struct {
		name         string
		make, unmake func() error
		want         string
	}{
		{"group may write the file", func() error { return os.Chmod(spec.Path, 0o775) }, func() error { return os.Chmod(spec.Path, 0o755) }, "chmod go-w " + spec.Path},
		{"others may write the folder", func() error { return os.Chmod(dir, 0o757) }, func() error { return os.Chmod(dir, 0o755) }, "chmod go-w " + dir},
		{"sticky does not help its own folder", func() error { return os.Chmod(dir, 0o777|os.ModeSticky) }, func() error { return os.Chmod(dir, 0o755) }, "chmod go-w " + dir},
		{"not executable", func() error { return os.Chmod(spec.Path, 0o644) }, func() error { return os.Chmod(spec.Path, 0o755) }, "chmod 755"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
			_, err := host.Launch(t.Context(), spec, services())
			wants(t, err, "untrusted", c.want)
			if err := c.unmake(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("somebody else's", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("giving a file away needs root")
		}
		if err := os.Chown(spec.Path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		_, err := host.Launch(t.Context(), spec, services())
		wants(t, err, "untrusted", "belongs to uid 12345")
	})
	for _, path := range []string{"plugin", "/not/there"} {
		spec.Path = path
		_, err := host.Launch(t.Context(), spec, services())
		wants(t, err, "untrusted", path)
	}
}

func TestAPluginGetsNothingElseOfOurEnvironment(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	t.Setenv("GITHUB_TOKEN", "t0ken")
	t.Setenv("LANG", "C.UTF-8")
	spec := self(t, "actor")
	env, err := act(t, launch(t, spec, services()), "env")
	if err != nil || strings.Contains(env, "SSH_AUTH_SOCK") || strings.Contains(env, "t0ken") {
		t.Errorf("%v\n%s", err, env)
	}
	for _, want := range []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TMPDIR=" + spec.RunDir} {
		if !strings.Contains(env, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestOnlyAdvertisedCapabilitiesAreExposed(t *testing.T) {
	p := launch(t, self(t, "liar"), services())
	_, err := p.Plan(t.Context(), request(""))
	wants(t, err, "protocol", "it is no snapshotter")
	_, err = act(t, p, "")
	wants(t, err, "protocol", "advertises what it does not serve")
}

func TestWhatIsNoPluginIsSaidSo(t *testing.T) {
	_, err := host.Launch(t.Context(), self(t, "garbage"), services())
	wants(t, err, "start", "does not speak deployer's plugin protocol", "libfoo.so", "file ")
	_, err = host.Launch(t.Context(), self(t, "greedy"), services())
	wants(t, err, "protocol", `wants the operation "exec"`, agent.OpSnapshot)
	spec := self(t, "actor")
	spec.Config = []byte(`"refuse"`)
	_, err = host.Launch(t.Context(), spec, services())
	wants(t, err, "config", "configuration: once is wrong", "leave it out")
}

func TestALaunchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := host.Launch(ctx, self(t, "actor"), services()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestNothingIsLeftInTheRunFolder(t *testing.T) {
	spec := self(t, "actor")
	p := launch(t, spec, services())
	pid, _ := act(t, p, "pid")
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(spec.RunDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if running(pid) {
		t.Error("it still runs")
	}
	_, err := act(t, p, "pid")
	wants(t, err, "closed")
}

func TestALongRunFolderFallsBack(t *testing.T) {
	spec := self(t, "actor")
	spec.RunDir = filepath.Join(spec.RunDir, strings.Repeat("x", 90))
	if err := os.Mkdir(spec.RunDir, 0o700); err != nil {
		t.Fatal(err)
	}
	launch(t, spec, services())
}

func TestItsLogIsOurs(t *testing.T) {
	core, seen := observer.New(zap.InfoLevel)
	s := services()
	s.Logger = zap.New(core)
	if _, err := act(t, launch(t, self(t, "actor"), s), "log"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, line := range seen.FilterMessage("hello").All() {
			if line.Level == zap.WarnLevel && line.LoggerName == "actor" && fmt.Sprint(line.ContextMap()["answer"]) == "42" {
				return
			}
		}
	}
	t.Errorf("not seen: %v", seen.All())
}

func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestAPluginIsGoneAfterDeployerWasKilled(t *testing.T) {
	for _, state := range []string{"idle", "busy"} {
		t.Run(state, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "parent", t.TempDir(), state)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			var pid, rest string
			if _, err := fmt.Fscan(out, &pid, &rest); err != nil || !running(pid) {
				t.Fatalf("%v: %q %q", err, pid, rest)
			}
			time.Sleep(200 * time.Millisecond)
			begin := time.Now()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			for running(pid) && time.Since(begin) < 5*time.Second {
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("gone after %v", time.Since(begin))
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("gone after %v", took)
			}
		})
	}
}

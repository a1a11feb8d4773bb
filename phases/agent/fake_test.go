package agent

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the agent: jobs and restores start it again. And it
// is who races with it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "as-racer" {
		race(os.Args[2], os.Getenv("TEST_PREFIX"))
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "as-agent" {
		o := fakeOptions(os.Getenv("TEST_PREFIX"))
		args := os.Args[2:]
		if len(args) > 1 && args[0] == "-root" {
			args = args[2:]
		}
		code, err := verb(context.Background(), o, args)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	if os.Geteuid() != 0 || os.Getenv("TEST_NAMESPACE") != "" {
		os.Exit(m.Run())
	}
	// In a mount namespace of their own: whoever makes one on this machine
	// meanwhile would hold copies of the mounts that tests make.
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), "TEST_NAMESPACE=own")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func fakeOptions(prefix string) Options {
	u := fakeUnits{prefix}
	moment := func(name string) {
		if name == os.Getenv("TEST_KILL_AT") {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return Options{Moment: moment, Root: prefix + "/state", Prefix: prefix, Path: prefix + "/bin:/usr/bin:/bin", Units: u, Journal: u, Self: []string{os.Args[0], "as-agent"}}
}

// fakeUnits is a service manager in a folder: units is what List prints, a
// transient unit is a process with its pid in NAME.pid and its output in NAME.log.
type fakeUnits struct{ dir string }

func (f fakeUnits) file(parts ...string) string { return f.dir + "/" + strings.Join(parts, "") }

func (f fakeUnits) List(context.Context) ([]Unit, error) {
	data, err := os.ReadFile(f.file("units"))
	units := parseUnits(string(data))
	scripts, _ := filepath.Glob(f.file("*.script"))
	for _, s := range scripts {
		if name := strings.TrimSuffix(filepath.Base(s), ".script"); len(f.procs(name)) > 0 {
			units = append(units, Unit{name, "loaded", f.state(name), "running"})
		}
	}
	return units, err
}

// state is what NAME.state says of a unit that runs, until it is stopped.
func (f fakeUnits) state(unit string) string {
	if len(f.procs(unit)) == 0 {
		return "inactive"
	}
	data, _ := os.ReadFile(f.file(unit, ".state"))
	return cmp.Or(string(data), "active")
}

// cgroup is where a unit with a NAME.script runs: a real control group.
func (f fakeUnits) cgroup(unit string) string {
	return "/deployer-test-" + sum([]byte(f.dir))[:12] + "/" + unit
}

func (f fakeUnits) procs(unit string) []string {
	data, _ := os.ReadFile(cgroups() + f.cgroup(unit) + "/cgroup.procs")
	return strings.Fields(string(data))
}

func (f fakeUnits) startScript(unit string) error {
	dir := cgroups() + f.cgroup(unit)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	c := exec.Command("sh", "-c", "echo $$ > "+dir+"/cgroup.procs && exec sh "+f.file(unit, ".script"))
	c.Dir, c.SysProcAttr = f.dir, &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	go c.Wait()
	for len(f.procs(unit)) == 0 {
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (f fakeUnits) stopScript(unit string) {
	os.Remove(f.file(unit, ".state"))
	populated := func() bool { // one that is about to be gone has its folder still, and is not among the procs
		data, _ := os.ReadFile(cgroups() + f.cgroup(unit) + "/cgroup.events")
		return strings.Contains(string(data), "populated 1")
	}
	for pids := f.procs(unit); len(pids) > 0 || populated(); pids = f.procs(unit) {
		for _, pid := range pids {
			n, _ := strconv.Atoi(pid)
			syscall.Kill(n, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

func (f fakeUnits) Run(_ context.Context, t Transient) error {
	claim, err := os.OpenFile(f.file(t.Name, ".pid"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("unit %s was already loaded", t.Name)
	}
	defer claim.Close()
	log, err := os.Create(f.file(t.Name, ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(t.Args[0], t.Args[1:]...)
	c.Env = append(append(os.Environ(), t.Env...), "TEST_PREFIX="+f.dir)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	fmt.Fprint(claim, c.Process.Pid)
	go c.Wait()
	return nil
}

func (f fakeUnits) pid(unit string) int {
	data, _ := os.ReadFile(f.file(unit, ".pid"))
	pid, _ := strconv.Atoi(string(data))
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") Z ") {
		return 0
	}
	return pid
}

func (f fakeUnits) Show(_ context.Context, unit string, _ ...string) (map[string]string, error) {
	if _, err := os.Stat(f.file(unit, ".pid")); err == nil {
		if f.pid(unit) > 0 {
			return map[string]string{"ActiveState": "active"}, nil
		}
		return map[string]string{"ActiveState": "inactive"}, nil
	}
	if _, err := os.Stat(f.file(unit, ".script")); err == nil {
		p := map[string]string{"ControlGroup": f.cgroup(unit), "ActiveState": f.state(unit)}
		f.properties(unit, p)
		return p, nil
	}
	units, _ := f.List(context.Background())
	for _, u := range units {
		if u.Name == unit {
			return map[string]string{"ActiveState": u.Active, "SubState": u.Sub, "LoadState": "loaded", "Result": "exit-code"}, nil
		}
	}
	p := map[string]string{"ActiveState": "inactive", "LoadState": "not-found"}
	f.properties(unit, p)
	return p, nil
}

func (f fakeUnits) properties(unit string, p map[string]string) {
	data, _ := os.ReadFile(f.file(unit, ".properties"))
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p[key] = value
	}
}

func (f fakeUnits) Do(_ context.Context, verb string, units ...string) error {
	switch verb {
	case "reset-failed":
		return nil
	case "queue", "reach":
		verb = "start"
	}
	for _, u := range units {
		if _, err := os.Stat(f.file(u, ".script")); err == nil {
			if f.stopScript(u); verb == "start" {
				if err := f.startScript(u); err != nil {
					return err
				}
			}
			continue
		}
		if pid := f.pid(u); pid > 0 && verb == "stop" {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // KillMode=control-group
			for _, task := range tasks {
				children, _ := os.ReadFile(task)
				for _, c := range strings.Fields(string(children)) {
					n, _ := strconv.Atoi(c)
					syscall.Kill(-n, syscall.SIGTERM)
				}
			}
			syscall.Kill(-pid, syscall.SIGTERM)
			for f.pid(u) > 0 {
				time.Sleep(5 * time.Millisecond)
			}
			continue
		}
		if verb == "start" {
			if strings.HasPrefix(u, "broken") {
				return fmt.Errorf("job for %s failed", u)
			}
			data, _ := os.ReadFile(f.file("units"))
			os.WriteFile(f.file("units"), []byte(string(data)+u+" loaded active running x\n"), 0o600)
		}
	}
	return nil
}

func (f fakeUnits) Read(_ context.Context, args OutputArgs) (Output, error) {
	data, err := os.ReadFile(f.file(args.Unit, ".log"))
	return Output{Lines: strings.Split(strings.TrimSpace(string(data)), "\n"), Cursor: "c1"}, err
}

// host is a fake host: two systems in a store, a profile, a boot loader.
type host struct {
	t   *testing.T
	dir string
	*agent
}

const (
	oldTop = "/nix/store/aaa-old"
	newTop = "/nix/store/bbb-new"
)

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	h.file("proc/sys/kernel/random/boot_id", "boot-1\n")
	h.file("etc/os-release", "NAME=NixOS\nID=nixos\n")
	h.file("units", "ok.service loaded active running x\nbad.service loaded failed failed x\n")
	for _, top := range []string{oldTop, newTop} {
		h.system(top)
	}
	h.link("run/current-system", oldTop)
	h.link("run/booted-system", oldTop)
	h.link("nix/var/nix/profiles/system-1-link", oldTop)
	h.link("nix/var/nix/profiles/system", "system-1-link")
	h.file("boot/loader/loader.conf", "timeout 5\ndefault nixos-generation-1.conf\n")
	h.file("boot/loader/entries/nixos-generation-1.conf", entryText(oldTop, 1))
	h.agent = newAgent(fakeOptions(h.dir))
	return h
}

func entryText(top string, n int) string {
	return fmt.Sprintf("title NixOS\nsort-key nixos\nversion Generation %d\noptions init=%s/init quiet\n", n, top)
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) file(name, content string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	must(h.t, os.WriteFile(h.path(name), []byte(content), 0o755))
}

func (h *host) link(name, target string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	os.Remove(h.path(name))
	must(h.t, os.Symlink(target, h.path(name)))
}

func (h *host) read(name string) string {
	data, _ := os.ReadFile(h.path(name))
	return string(data)
}

// system is a toplevel whose programs do to the fake host what the real ones do
// to a real one, and write down that they ran. A file behave-NAME changes that.
func (h *host) system(top string) {
	h.file(top+"/nixos-version", "1")
	h.file(top+"/bin/switch-to-configuration", fmt.Sprintf(`#!/bin/sh
d=%s top=%s
echo "${top##*/} $1 ${NIXOS_INSTALL_BOOTLOADER-}" >> $d/log
[ -e $d/behave-${top##*/} ] && . $d/behave-${top##*/}
case $1 in
test|switch) ln -sfn $top $d/run/current-system ;;
boot) printf 'title NixOS\noptions init=%%s/init\n' $top > $d/boot/loader/entries/nixos-generation-9.conf
  printf 'default nixos-generation-9.conf\n' > $d/boot/loader/loader.conf ;;
esac
`, h.dir, top))
	h.file(top+"/sw/bin/nix-env", fmt.Sprintf(`#!/bin/sh
echo "nix-env $*" >> %s/log
shift; p=$1; shift; d=${p%%/*} b=${p##*/}
case $1 in
--set) n=$(ls $d | sed -n "s/^$b-\([0-9]*\)-link$/\1/p" | sort -n | tail -1); n=$((n + 1))
  ln -s "$2" $d/$b-$n-link; ln -sfn $b-$n-link $p ;;
--switch-generation) [ -L $d/$b-$2-link ] || exit 1; ln -sfn $b-$2-link $p ;;
--delete-generations) rm $d/$b-$2-link ;;
*) exit 9 ;;
esac
`, h.dir))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isCode(t *testing.T, err error, code string) {
	t.Helper()
	if err == nil || asError(err).Code != code {
		t.Fatalf("error %v, want code %s", err, code)
	}
}

// duplex is two pipes: an agent's two ends.
type duplex struct {
	io.Reader
	io.WriteCloser
}

// connect serves h over pipes; ended gives what Serve returned.
func (h *host) connect() (c *Client, ended chan error) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ended = make(chan error, 1)
	go func() {
		err := Serve(context.Background(), inR, outW, h.Options)
		outW.Close()
		ended <- err
	}()
	c = NewClient(duplex{outR, inW})
	h.t.Cleanup(func() { c.Close() })
	return c, ended
}

func ask1[R any](ctx context.Context, c *Client, op string, args any) (R, error) {
	var result R
	err := c.Call(ctx, op, args, &result)
	return result, err
}

func (c *Client) hello(ctx context.Context) (Hello, error) { return ask1[Hello](ctx, c, OpHello, nil) }

func (c *Client) exec(ctx context.Context, args ExecArgs) (ExecResult, error) {
	return ask1[ExecResult](ctx, c, OpExec, args)
}

func (h *host) wait(unit string, d time.Duration) Receipt {
	h.t.Helper()
	r, err := h.jobWait(h.t.Context(), JobRef{Unit: unit, Wait: d})
	must(h.t, err)
	return r
}

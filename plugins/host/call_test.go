package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/plugins/host"
)

// operator notes what it was asked, and does what do says.
type operator struct {
	mu    sync.Mutex
	asked []string
	do    func(ctx context.Context) error
}

func (o *operator) Operate(ctx context.Context, hostRef, op string, args json.RawMessage) (json.RawMessage, error) {
	o.mu.Lock()
	o.asked = append(o.asked, hostRef+" "+op+" "+string(args))
	o.mu.Unlock()
	if o.do != nil {
		return nil, o.do(ctx)
	}
	return json.RawMessage(`{}`), nil
}

type audit struct {
	mu    sync.Mutex
	calls []host.Call
}

func (a *audit) add(c host.Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, c)
}

func (a *audit) last() host.Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) == 0 {
		return host.Call{}
	}
	return a.calls[len(a.calls)-1]
}

func withOperator(t *testing.T, o *operator, config string) (*host.Plugin, *audit) {
	t.Helper()
	a := &audit{}
	s := services()
	s.Operator, s.Audit, s.Writes = o, a.add, func(op string) bool { return op == agent.OpSnapshot }
	spec := self(t, "actor")
	spec.Config = []byte(config)
	return launch(t, spec, s), a
}

func request(run string) host.SnapshotRequest {
	return host.SnapshotRequest{Run: run, HostRef: "web-1", OperationID: "op-7"}
}

func once(t *testing.T) string { return `"` + t.TempDir() + `/once"` }

func TestAPanicIsTheErrorOfItsCall(t *testing.T) {
	p := launch(t, self(t, "actor"), services())
	before, _ := act(t, p, "pid")
	_, err := act(t, p, "panic")
	wants(t, err, "failed", "panic: on cue")
	if after, err := act(t, p, "pid"); err != nil || after != before {
		t.Errorf("%v: another process, %s after %s", err, after, before)
	}
}

func TestAPluginsErrorKeepsCodeAndHints(t *testing.T) {
	_, err := act(t, launch(t, self(t, "actor"), services()), "fail")
	wants(t, err, "busy", "notify: outer: inner", "wait")
	_, err = act(t, launch(t, self(t, "actor"), services()), "unavailable")
	wants(t, err, "failed", "its pager is down") // an answer, no crash
}

func TestACrashStartsItAgainOncePerCall(t *testing.T) {
	spec := self(t, "actor")
	spec.Config = []byte(once(t))
	p := launch(t, spec, services())
	before, _ := act(t, p, "pid")
	after, err := act(t, p, "crash-once")
	if err != nil || after == before {
		t.Errorf("%v, pid %s after %s", err, after, before)
	}
	_, err = act(t, p, "crash")
	wants(t, err, "crashed", "ended before it had answered", "out of cheese")
	if _, err := act(t, p, "pid"); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestKilledFromOutsideItIsStartedAgain(t *testing.T) {
	p := launch(t, self(t, "actor"), services())
	pid, _ := act(t, p, "pid")
	n, _ := strconv.Atoi(pid)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if after, err := act(t, p, "pid"); err != nil || after == pid {
		t.Errorf("%v, pid %s", err, after)
	}
}

func TestASnapshotIsAskedAgainUnderTheSameIDs(t *testing.T) {
	o := &operator{}
	p, a := withOperator(t, o, once(t))
	if _, err := p.Create(t.Context(), request("crash-once")); err != nil {
		t.Fatal(err)
	}
	if len(o.asked) != 2 || o.asked[0] != o.asked[1] || !strings.Contains(o.asked[0], `"id":"op-7"`) {
		t.Errorf("asked %q", o.asked)
	}
	if last := a.last(); last.Operation != "op-7" || last.Host != "web-1" || !last.Write || last.Refused {
		t.Errorf("audited %+v", last)
	}
	if _, err := p.Create(t.Context(), host.SnapshotRequest{}); err == nil {
		t.Error("a snapshot without an operation id")
	}
}

func TestAPluginThatHangsIsEnded(t *testing.T) {
	defer host.ForTestLimits(500*time.Millisecond, 500*time.Millisecond)()
	o := &operator{}
	p, _ := withOperator(t, o, `""`)
	pid, _ := act(t, p, "pid")
	begin := time.Now()
	_, err := act(t, p, "hang")
	wants(t, err, "hung", "no answer in time")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if running(pid) {
		t.Error("it still runs")
	}
	_, err = p.Create(t.Context(), request("hang"))
	wants(t, err, "hung", "no answer in time")
	if len(o.asked) != 1 {
		t.Errorf("asked again: %q", o.asked)
	}
}

func TestAStoppedPluginIsEnded(t *testing.T) {
	defer host.ForTestLimits(2*time.Second, time.Second)()
	p := launch(t, self(t, "actor"), services())
	pid, err := act(t, p, "pid")
	if err != nil {
		t.Fatal(err)
	}
	stop(t, pid)
	_, err = act(t, p, "pid")
	wants(t, err, "hung")
	if after, err := act(t, p, "pid"); err != nil || after == pid {
		t.Errorf("%v, pid %s", err, after)
	}
}

// stop stops a process and waits until all of it has: a thread that still ran
// could answer once more.
func stop(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		t.Fatalf("pid %q", pid)
	}
	if err := syscall.Kill(n, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for {
		threads, err := filepath.Glob("/proc/" + pid + "/task/*/stat")
		if err != nil || len(threads) == 0 {
			t.Fatalf("pid %s is gone", pid)
		}
		running := slices.ContainsFunc(threads, func(stat string) bool {
			b, err := os.ReadFile(stat)
			_, after, _ := strings.Cut(string(b), ") ")
			return err == nil && !strings.HasPrefix(after, "T")
		})
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWritesAreRefusedOutsideCreate(t *testing.T) {
	o := &operator{}
	p, a := withOperator(t, o, `""`)
	req := request("x")
	req.Dir = agent.OpSnapshot // the actor's Plan asks for the operation that Dir names
	_, err := p.Plan(t.Context(), req)
	wants(t, err, "refused", "must not change the host")
	if last := a.last(); !last.Refused || !last.Write || last.Name != agent.OpSnapshot || last.Error == "" {
		t.Errorf("audited %+v", last)
	}
	req.Dir = agent.OpDiscover
	if _, err := p.Plan(t.Context(), req); err != nil {
		t.Error(err)
	}
	if len(o.asked) != 1 {
		t.Errorf("asked %q", o.asked)
	}
}

func TestAnOperationHappensOnlyIfDeclaredAndGiven(t *testing.T) {
	o, a := &operator{}, &audit{}
	p := launch(t, self(t, "asker"), host.Services{Operator: o, Audit: a.add, Allow: []string{agent.OpDiscover, agent.OpSnapshot}})
	for title, want := range map[string]string{
		"op:" + agent.OpExec:     "is not given to plugins",
		"op:" + agent.OpSnapshot: "was not declared",
		"op:" + agent.OpDiscover: "good only during the call",
	} {
		_, err := act(t, p, title)
		wants(t, err, "refused", want)
		if !a.last().Refused {
			t.Errorf("audited %+v", a.last())
		}
	}
	if len(o.asked) > 0 {
		t.Errorf("asked %q", o.asked)
	}
}

func TestASecretIsGivenOnlyByADeclaredName(t *testing.T) {
	a := &audit{}
	p := launch(t, self(t, "asker"), host.Services{Allow: []string{agent.OpDiscover}, Audit: a.add, Secret: func(_ context.Context, name string) (string, bool, error) {
		if name == "broken" {
			return "", true, errors.New("cannot run pass")
		}
		return "v4lue of " + name, name != "unset", nil
	}})
	if got, err := act(t, p, "token"); err != nil || got != "v4lue of token" {
		t.Errorf("%q %v", got, err)
	}
	if text, _ := json.Marshal(a.last()); strings.Contains(string(text), "v4lue") || a.last().Name != "token" {
		t.Errorf("audited %s", text)
	}
	_, err := act(t, p, "other")
	wants(t, err, "refused", `"other" was not declared`)
	_, err = act(t, p, "unset")
	wants(t, err, "not-found", `"unset" is not configured`)
	_, err = act(t, p, "broken")
	wants(t, err, "failed", "cannot run pass")
}

func TestARecipeIsMadeOfTypedOperations(t *testing.T) {
	p, _ := withOperator(t, &operator{}, `""`)
	got, err := p.Create(t.Context(), request("recipe"))
	if err != nil || len(got.Recipe) != 1 || got.Recipe[0].Op != agent.DoUnits || got.Recipe[0].Units[0] != "a.service" {
		t.Errorf("%+v %v", got, err)
	}
	_, err = p.Create(t.Context(), request("bad-recipe"))
	wants(t, err, "protocol", "no typed operation")
	_, err = p.Create(t.Context(), request("no-recipe"))
	wants(t, err, "failed", "recipe")
}

func TestACallEndsWithItsContext(t *testing.T) {
	o := &operator{do: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	p, _ := withOperator(t, o, `""`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := p.Create(ctx, request("x")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func TestCloseDrains(t *testing.T) {
	p := launch(t, self(t, "actor"), services())
	done := make(chan error, 1)
	go func() { _, err := act(t, p, "slow"); done <- err }()
	time.Sleep(100 * time.Millisecond)
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the call under way: %v", err)
	}

	p = launch(t, self(t, "actor"), services())
	go func() { _, err := act(t, p, "hang"); done <- err }()
	time.Sleep(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	wants(t, p.Close(ctx), "closed", "middle of its work")
	if err := <-done; err == nil || time.Since(begin) > 4*time.Second { // five are the drain: it did not wait for the whole time to drain
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func TestManyCallsShareACrash(t *testing.T) {
	p := launch(t, self(t, "actor"), services())
	pid, _ := act(t, p, "pid")
	n, _ := strconv.Atoi(pid)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if _, err := act(t, p, "slow"); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	_ = syscall.Kill(n, syscall.SIGKILL)
	all.Wait()
}

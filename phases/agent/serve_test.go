package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestManyCallsShareOneStream(t *testing.T) {
	c, _ := newHost(t).connect()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			res, err := c.exec(t.Context(), ExecArgs{Args: []string{"echo", fmt.Sprint(i)}, Timeout: 20 * time.Second})
			if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(i) {
				t.Errorf("%d: %q %v", i, res.Stdout, err)
			}
		})
	}
	all.Wait()
}

func TestSlowCallDoesNotHoldUpOthers(t *testing.T) {
	c, _ := newHost(t).connect()
	go c.exec(context.Background(), ExecArgs{Args: []string{"sleep", "5"}, Timeout: 10 * time.Second})
	start := time.Now()
	_, err := c.hello(t.Context())
	must(t, err)
	if time.Since(start) > 3*time.Second {
		t.Error("hello waited for the other call")
	}
}

func TestClientToleratesGreeting(t *testing.T) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	go func() {
		fmt.Fprint(outW, "Welcome!\n\n{not json}\n{\"motd\":1}\nprompt> ")
		Serve(context.Background(), inR, outW, fakeOptions(t.TempDir()))
	}()
	c := NewClient(duplex{outR, inW})
	defer c.Close()
	h, err := c.hello(t.Context())
	must(t, err)
	if len(h.Digest) != 64 || h.Arch == "" {
		t.Errorf("hello %+v", h)
	}
}

func TestPendingCallsFailWhenTheStreamEnds(t *testing.T) {
	outR, outW := io.Pipe()
	c := NewClient(duplex{outR, discard{}})
	failed := make(chan error, 3)
	for range 3 {
		go func() { _, err := c.hello(context.Background()); failed <- err }()
	}
	time.Sleep(20 * time.Millisecond)
	outW.Close()
	for range 3 {
		if err := <-failed; !errors.Is(err, ErrLost) {
			t.Errorf("error %v, want ErrLost", err)
		}
	}
	if _, err := c.hello(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("a call after the end: %v", err)
	}
	<-c.Lost()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func TestCancelledCallEndsItsChild(t *testing.T) {
	h := newHost(t)
	c, _ := h.connect()
	ctx, cancel := context.WithCancel(t.Context())
	mark := h.path("mark")
	go func() {
		for !exists(mark) {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	_, err := c.exec(ctx, ExecArgs{Args: []string{"sh", "-c", "echo $$ > " + mark + ".new; mv " + mark + ".new " + mark + "; exec sleep 60"}, Timeout: time.Minute})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	gone(t, mark)
}

// gone waits until the process whose number is in a file is no more.
func gone(t *testing.T, file string) {
	t.Helper()
	pid, _ := os.ReadFile(file)
	for range 400 {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s still runs", pid)
}

func TestExecEndsWithConnection(t *testing.T) {
	h := newHost(t)
	c, ended := h.connect()
	mark := h.path("mark")
	go c.exec(context.Background(), ExecArgs{Args: []string{"sh", "-c", "echo $$ > " + mark + ".new; mv " + mark + ".new " + mark + "; sleep 60"}, Timeout: time.Minute})
	for !exists(mark) {
		time.Sleep(5 * time.Millisecond)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	gone(t, mark)
}

func TestExecTimeoutEndsItsGroup(t *testing.T) {
	h := newHost(t)
	mark := h.path("mark")
	start := time.Now()
	res, err := h.exec(t.Context(), ExecArgs{Args: []string{"sh", "-c", "(trap '' TERM; echo $$ > " + mark + ".new; mv " + mark + ".new " + mark + "; sleep 60) & wait"}, Timeout: 200 * time.Millisecond})
	must(t, err)
	if !res.TimedOut || time.Since(start) > 10*time.Second {
		t.Errorf("%+v after %s", res, time.Since(start))
	}
	gone(t, mark)
}

func TestExecKeepsTailsAndStatus(t *testing.T) {
	h := newHost(t)
	res, err := h.exec(t.Context(), ExecArgs{Args: []string{"sh", "-c", "head -c 1000000 /dev/zero; echo end; printf in >&2; exit 7"}, Timeout: 10 * time.Second})
	must(t, err)
	if res.Code != 7 || len(res.Stdout) != tailSize || !bytes.HasSuffix(res.Stdout, []byte("end\n")) || string(res.Stderr) != "in" {
		t.Errorf("code %d, %d bytes, stderr %q", res.Code, len(res.Stdout), res.Stderr)
	}
	if _, err := h.exec(t.Context(), ExecArgs{Args: []string{"/no/such"}}); err == nil {
		t.Error("a missing program ran")
	}
}

func TestWriteFinishesWhenTheStreamEnds(t *testing.T) {
	h := newHost(t)
	h.file("nix/store/aaa-old/sw/bin/nix-env", "#!/bin/sh\nsleep 0.3\nln -sfn "+newTop+" "+h.path("nix/var/nix/profiles/system")+"\n")
	c, ended := h.connect()
	go c.Call(context.Background(), OpApply, Operation{Op: DoProfile, System: newTop}, nil)
	time.Sleep(100 * time.Millisecond)
	c.Close()
	<-ended
	if is := h.resolve(SystemProfile); is != newTop {
		t.Errorf("profile is %s: the write was broken off", is)
	}
}

func TestPanicBecomesError(t *testing.T) {
	operations["test.panic"] = is(reads, func(*agent, context.Context, none) (none, error) { panic("oh") })
	defer delete(operations, "test.panic")
	c, _ := newHost(t).connect()
	isCode(t, c.Call(t.Context(), "test.panic", nil, nil), "panic")
	_, err := c.hello(t.Context())
	must(t, err)
}

func TestBadRequestsAreAnswered(t *testing.T) {
	c, _ := newHost(t).connect()
	isCode(t, c.Call(t.Context(), "no.such", nil, nil), "invalid")
	isCode(t, c.Call(t.Context(), OpExec, "text", nil), "invalid")
	isCode(t, c.Call(t.Context(), OpExec, ExecArgs{}, nil), "invalid")
	isCode(t, c.Call(t.Context(), OpExec, ExecArgs{Env: []string{strings.Repeat("x", MaxLine)}}, nil), "invalid")
}

func TestLineLimitEndsTheAgent(t *testing.T) {
	err := Serve(t.Context(), strings.NewReader(strings.Repeat("x", MaxLine+1)+"\n"), io.Discard, fakeOptions(t.TempDir()))
	if err == nil {
		t.Error("a line without an end was accepted")
	}
}

func TestServeSpeaksOneJSONLinePerAnswer(t *testing.T) {
	var out bytes.Buffer
	must(t, Serve(t.Context(), strings.NewReader(`{"id":7,"op":"hello"}`+"\n"), &out, fakeOptions(t.TempDir())))
	var res Response
	if err := json.Unmarshal(out.Bytes(), &res); err != nil || res.ID != 7 || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%q: %v", out.Bytes(), err)
	}
}

func TestWritesKnowsEveryOperation(t *testing.T) {
	for op, want := range map[string]bool{OpHello: false, OpFacts: false, OpExec: true, OpProbe: true, OpJobStart: true, OpJobWait: false,
		OpApply: true, OpRestore: true, OpDiscover: false, OpSnapshot: true, OpSnapshots: false, OpCancel: false, "unheard.of": true} {
		if Writes(op) != want {
			t.Errorf("Writes(%s) = %t", op, !want)
		}
	}
}

func TestMainIgnoresAReaderThatIsGone(t *testing.T) {
	h := newHost(t)
	c := exec.Command(os.Args[0], "as-agent", "serve")
	c.Env = append(os.Environ(), "TEST_PREFIX="+h.dir)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	out.Close()
	for range 3 {
		fmt.Fprintln(in, `{"id":1,"op":"hello"}`)
		time.Sleep(50 * time.Millisecond)
	}
	in.Close()
	_ = c.Wait() // it must end, by itself
}

// A caller that uses an id again as soon as it was answered once crashed the
// agent: the first request's end took the second one's entry away.
func TestAnIDThatIsUsedAgainAtOnceDoesNotCrashTheAgent(t *testing.T) {
	in, feed := io.Pipe()
	out, answers := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), in, answers, fakeOptions(t.TempDir())) }()
	lines := bufio.NewScanner(out)
	for range 200 {
		fmt.Fprintln(feed, `{"id":1,"op":"hello"}`)
		if !lines.Scan() {
			t.Fatal("the agent went away")
		}
	}
	feed.Close()
	must(t, <-done)
}

package hosttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

// Conformance checks what package host promises. The hosts that make returns
// must share a file system with the test; they are closed by it.
func Conformance(t *testing.T, make func() host.Host) {
	for _, c := range []struct {
		name string
		test func(*testing.T, host.Host)
	}{
		{"ArgumentsArriveAsWritten", arguments},
		{"EnvironmentAndFolder", environment},
		{"StdinReachesTheCommand", stdin},
		{"OutputStreamsStayApart", streams},
		{"OutputIsCutToTheLastMebibyte", cut},
		{"ExitCodeAndSignal", codes},
		{"AProgramThatIsMissingIsAResult", absent},
		{"ANonsensicalCommandIsRefused", nonsense},
		{"TimeoutEndsTheCommand", timeouts},
		{"TimeoutIsEnforcedOnTheHostToo", timeoutThere},
		{"CancelEndsGrandchildren", grandchildren},
		{"CancelEndsWhatIgnoresSIGTERM", stubborn},
		{"CancelWorksWithAllSessionsBusy", busy},
		{"FailingInputEndsTheCommand", badInput},
		{"ManySessionsQueue", many},
		{"ProcessStreamsBothWays", duplex},
		{"StopEndsAProcess", stop},
		{"StopEndsAProcessThatIgnoresItsInput", stopDeaf},
		{"UploadIsAtomicAndExact", upload},
		{"InterruptedUploadLeavesTheOldFile", interrupted},
		{"FiveMebibytesKeepTheirDigest", transfer},
		{"DownloadOfNothing", downloadMissing},
		{"FreshIsAnotherConnection", fresh},
		{"ClosedMeansLost", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := make()
			defer h.Close()
			c.test(t, h)
		})
	}
}

// within is a context that fails the test instead of hanging it.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func run(t *testing.T, h host.Host, cmd host.Command) host.Result {
	t.Helper()
	res, err := h.Run(within(t, 30*time.Second), cmd)
	if err != nil {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return res
}

func sh(script string, args ...string) []string {
	return append([]string{"sh", "-c", script, "sh"}, args...)
}

var nasty = []string{
	"plain", "", " ", "two words", "'single'", `"double"`, "$HOME", "$(id -u)", "`id -u`", ";id -u", "a\nb", "\n",
	"-n", "--", "*", "?", "~", "#no comment", `back\slash`, `\`, `\\`, `'\''`, `end\`, "!history", "{a,b}", "a&b|c>d<e", "\t", "\x01\x7f",
	"\xff\xfe", "größe €", "K=V", "%s", "^x", "=ls", "(x)", "[x]", "if", "a\r\nb",
}

func arguments(t *testing.T, h host.Host) {
	args := append([]string{"printf", `%s\0`}, nasty...)
	got := run(t, h, host.Command{Args: args}).Stdout
	if want := strings.Join(nasty, "\x00") + "\x00"; string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func environment(t *testing.T, h host.Host) {
	dir := filepath.Join(t.TempDir(), "odd 'name' $HOME")
	run(t, h, host.Command{Args: []string{"mkdir", dir}})
	for _, v := range nasty {
		res := run(t, h, host.Command{Args: sh(`printf '%s|%s' "$ODD" "$PWD"`), Env: []string{"ODD=" + v}, Dir: dir})
		if got, want := string(res.Stdout), v+"|"+dir; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	res := run(t, h, host.Command{Args: []string{"true"}, Dir: "/not/there"})
	if res.Code != 126 {
		t.Errorf("a folder that is missing: %+v, want code 126", res)
	}
}

func stdin(t *testing.T, h host.Host) {
	res := run(t, h, host.Command{Args: []string{"cat"}, Stdin: strings.NewReader("in\nput")})
	if string(res.Stdout) != "in\nput" {
		t.Errorf("got %q", res.Stdout)
	}
	if res := run(t, h, host.Command{Args: []string{"cat"}}); len(res.Stdout) != 0 {
		t.Errorf("no input became %q", res.Stdout)
	}
	run(t, h, host.Command{Args: []string{"true"}, Stdin: bytes.NewReader(make([]byte, 4<<20))}) // left unread
}

func streams(t *testing.T, h host.Host) {
	script := host.Command{Args: sh("echo out; echo err >&2")}
	res := run(t, h, script)
	if string(res.Stdout) != "out\n" || string(res.Stderr) != "err\n" {
		t.Errorf("collected %q and %q", res.Stdout, res.Stderr)
	}
	var out, err bytes.Buffer
	script.Stdout, script.Stderr = &out, &err
	res = run(t, h, script)
	if out.String() != "out\n" || err.String() != "err\n" || res.Stdout != nil || res.Stderr != nil {
		t.Errorf("streamed %q and %q, kept %q and %q", &out, &err, res.Stdout, res.Stderr)
	}
}

func cut(t *testing.T, h host.Host) {
	res := run(t, h, host.Command{Args: sh("head -c 3000000 /dev/zero; echo end")})
	if len(res.Stdout) != 1<<20 || !bytes.HasSuffix(res.Stdout, []byte("\x00end\n")) {
		t.Errorf("kept %d bytes", len(res.Stdout))
	}
}

func codes(t *testing.T, h host.Host) {
	for code := range map[int]bool{0: true, 1: true, 7: true, 255: true} {
		res := run(t, h, host.Command{Args: sh("exit $1", fmt.Sprint(code))})
		if res.Code != code || res.Signal != "" {
			t.Errorf("exit %d: %+v", code, res)
		}
	}
	for name, code := range map[string]int{"TERM": 143, "KILL": 137} {
		for _, limit := range []time.Duration{0, time.Minute} {
			res := run(t, h, host.Command{Args: sh("kill -$1 $$", name), Timeout: limit})
			if res.Code != code || res.Signal != name {
				t.Errorf("kill -%s with timeout %s: %+v", name, limit, res)
			}
		}
	}
}

func absent(t *testing.T, h host.Host) {
	if res := run(t, h, host.Command{Args: []string{"no-such-program"}}); res.Code == 0 || len(res.Stderr) == 0 {
		t.Errorf("got %+v, want a code (127, or 1 from sudo) and a reason", res)
	}
}

func nonsense(t *testing.T, h host.Host) {
	for _, c := range []host.Command{
		{}, {Args: []string{""}}, {Args: []string{"x", "a\x00b"}},
		{Args: []string{"true"}, Env: []string{"a b=c"}}, {Args: []string{"true"}, Env: []string{"novalue"}},
	} {
		if _, err := h.Run(within(t, 10*time.Second), c); err == nil {
			t.Errorf("%+v was run", c)
		}
	}
}

func fresh(t *testing.T, h host.Host) {
	other, err := h.Fresh(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	defer other.Close()
	run(t, other, host.Command{Args: []string{"true"}})
	u1, r1 := h.Login()
	if u2, r2 := other.Login(); u1 != u2 || r1 != r2 || u1 == "" || h.Name() != other.Name() {
		t.Errorf("the fresh one is %s/%t at %s", u2, r2, other.Name())
	}
}

func closed(t *testing.T, h host.Host) {
	select {
	case <-h.Lost():
		t.Fatal("lost from the start")
	default:
	}
	h.Close()
	select {
	case <-h.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("closed, and not lost")
	}
	_, err := h.Run(within(t, 10*time.Second), host.Command{Args: []string{"true"}})
	wantKind(t, err, host.Lost)
}

func wantKind(t *testing.T, err error, kind host.Kind) {
	t.Helper()
	var e *host.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("error is %v, want kind %s", err, kind)
	}
}

func many(t *testing.T, h host.Host) {
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			res, err := h.Run(within(t, 60*time.Second), host.Command{Args: sh("sleep 0.1; echo $1", fmt.Sprint(i))})
			if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(i) {
				t.Errorf("%d: %q, %v", i, res.Stdout, err)
			}
		})
	}
	all.Wait()
}

func transfer(t *testing.T, h host.Host) {
	content := make([]byte, 5<<20)
	rand.Read(content)
	path := filepath.Join(t.TempDir(), "big")
	if err := h.Upload(within(t, time.Minute), bytes.NewReader(content), path, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if err := h.Download(within(t, time.Minute), path, sum); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(content); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("what came back differs")
	}
}

func downloadMissing(t *testing.T, h host.Host) {
	err := h.Download(within(t, 10*time.Second), "/not/there", io.Discard)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

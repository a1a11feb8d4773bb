package hosttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

// Conformance checks what package host promises. The hosts that make returns
// must share a file system with the test; they are closed by it.
func Conformance(t *testing.T, make func() host.Host) {
	for name, test := range map[string]func(subject){
		"ArgumentsArriveAsWritten":       subject.arguments,
		"EnvironmentAndFolder":           subject.environment,
		"StdinReachesTheCommand":         subject.stdin,
		"OutputStreamsStayApart":         subject.streams,
		"OutputIsCutToTheLastMebibyte":   subject.cut,
		"ExitCodeAndSignal":              subject.codes,
		"AProgramThatIsMissingIsAResult": subject.absent,
		"ANonsensicalCommandIsRefused":   subject.nonsense,
		"CancelEndsGrandchildren":        func(s subject) { s.cancelled(family, 4) },
		"CancelEndsWhatIgnoresSIGTERM":   func(s subject) { s.cancelled(stubborn, 1) },
		"CancelEndsAProcess":             subject.cancelledProcess,
		"CancelWorksWithAllSessionsBusy": subject.busy,
		"FailingInputEndsTheCommand":     subject.badInput,
		"ManySessionsQueue":              subject.many,
		"ProcessStreamsBothWays":         subject.duplex,
		"FreshIsAnotherConnection":       subject.fresh,
		"ClosedMeansLost":                subject.closed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := make()
			defer h.Close()
			test(subject{t, h})
		})
	}
}

// subject is the host in question.
type subject struct {
	*testing.T
	host.Host
}

// within is a context that fails the test instead of hanging it.
func (s subject) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), d)
	s.Cleanup(cancel)
	return ctx
}

func (s subject) run(cmd host.Command) host.Result {
	s.Helper()
	res, err := s.Host.Run(s.within(time.Minute), cmd)
	if err != nil {
		s.Fatalf("%q: %v", cmd.Args, err)
	}
	return res
}

func (s subject) start(args ...string) host.Process {
	s.Helper()
	p, err := s.Start(s.within(time.Minute), host.Command{Args: args})
	if err != nil {
		s.Fatal(err)
	}
	return p
}

func sh(script string, args ...string) []string {
	return append([]string{"sh", "-c", script, "sh"}, args...)
}

var nasty = []string{
	"plain", "", " ", "two words", "'single'", `"double"`, "$HOME", "$(id -u)", "`id -u`", ";id -u", "a\nb", "\n",
	"-n", "--", "*", "?", "~", "#no comment", `back\slash`, `\`, `\\`, `'\''`, `end\`, "!history", "{a,b}", "a&b|c>d<e", "\t", "\x01\x7f",
	"\xff\xfe", "größe €", "K=V", "%s", "^x", "=ls", "(x)", "[x]", "if", "a\r\nb",
}

func (s subject) arguments() {
	got := s.run(host.Command{Args: append([]string{"printf", `%s\0`}, nasty...)}).Stdout
	if want := strings.Join(nasty, "\x00") + "\x00"; string(got) != want {
		s.Errorf("got  %q\nwant %q", got, want)
	}
}

func (s subject) environment() {
	dir := filepath.Join(s.TempDir(), "odd 'name' $HOME")
	s.run(host.Command{Args: []string{"mkdir", dir}})
	for _, v := range nasty {
		res := s.run(host.Command{Args: sh(`printf '%s|%s' "$ODD" "$PWD"`), Env: []string{"ODD=" + v}, Dir: dir})
		if got, want := string(res.Stdout), v+"|"+dir; got != want {
			s.Errorf("got %q, want %q", got, want)
		}
	}
	if res := s.run(host.Command{Args: []string{"true"}, Dir: "/not/there"}); res.Code != 126 {
		s.Errorf("a folder that is missing: %+v, want code 126", res)
	}
}

func (s subject) stdin() {
	for _, text := range []string{"in\nput", ""} {
		if res := s.run(host.Command{Args: []string{"cat"}, Stdin: strings.NewReader(text)}); string(res.Stdout) != text {
			s.Errorf("%q became %q", text, res.Stdout)
		}
	}
	s.run(host.Command{Args: []string{"true"}, Stdin: bytes.NewReader(make([]byte, 4<<20))}) // left unread
}

func (s subject) streams() {
	script := host.Command{Args: sh("echo out; echo err >&2")}
	if res := s.run(script); string(res.Stdout) != "out\n" || string(res.Stderr) != "err\n" {
		s.Errorf("collected %q and %q", res.Stdout, res.Stderr)
	}
	var err bytes.Buffer
	script.Stderr = &err
	if res := s.run(script); string(res.Stdout) != "out\n" || err.String() != "err\n" || res.Stderr != nil {
		s.Errorf("collected %q, streamed %q, kept %q", res.Stdout, &err, res.Stderr)
	}
}

func (s subject) cut() {
	res := s.run(host.Command{Args: sh("head -c 3000000 /dev/zero; echo end")})
	if len(res.Stdout) != 1<<20 || !bytes.HasSuffix(res.Stdout, []byte("\x00end\n")) {
		s.Errorf("kept %d bytes", len(res.Stdout))
	}
}

func (s subject) codes() {
	for script, want := range map[string]host.Result{
		"exit 0": {}, "exit 7": {Code: 7}, "exit 255": {Code: 255},
		"kill -TERM $$": {Code: 143, Signal: "TERM"}, "kill -KILL $$": {Code: 137, Signal: "KILL"},
	} {
		if res := s.run(host.Command{Args: sh(script)}); res.Code != want.Code || res.Signal != want.Signal {
			s.Errorf("%s: %+v", script, res)
		}
	}
}

func (s subject) absent() {
	if res := s.run(host.Command{Args: []string{"no-such-program"}}); res.Code == 0 || len(res.Stderr) == 0 {
		s.Errorf("got %+v, want a code (127, or 1 from sudo) and a reason", res)
	}
}

func (s subject) nonsense() {
	for _, c := range []host.Command{
		{}, {Args: []string{""}}, {Args: []string{"x", "a\x00b"}},
		{Args: []string{"true"}, Env: []string{"a b=c"}}, {Args: []string{"true"}, Env: []string{"novalue"}},
	} {
		if _, err := s.Host.Run(s.within(10*time.Second), c); err == nil {
			s.Errorf("%+v was run", c)
		}
	}
}

func (s subject) fresh() {
	other, err := s.Fresh(s.within(20 * time.Second))
	if err != nil {
		s.Fatal(err)
	}
	s.Close()
	defer other.Close()
	subject{s.T, other}.run(host.Command{Args: []string{"true"}})
	u1, r1 := s.Login()
	if u2, r2 := other.Login(); u1 != u2 || r1 != r2 || u1 == "" || s.Host.Name() != other.Name() {
		s.Errorf("the fresh one is %s/%t at %s", u2, r2, other.Name())
	}
}

func (s subject) closed() {
	select {
	case <-s.Lost():
		s.Fatal("lost from the start")
	default:
	}
	s.Close()
	select {
	case <-s.Lost():
	case <-time.After(10 * time.Second):
		s.Fatal("closed, and not lost")
	}
	_, err := s.Host.Run(s.within(10*time.Second), host.Command{Args: []string{"true"}})
	wantKind(s.T, err, host.Lost)
}

func wantKind(t *testing.T, err error, kind host.Kind) {
	t.Helper()
	var e *host.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("error is %v, want kind %s", err, kind)
	}
}

func (s subject) many() {
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			res, err := s.Host.Run(s.within(time.Minute), host.Command{Args: sh("sleep 0.1; echo $1", fmt.Sprint(i))})
			if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(i) {
				s.Errorf("%d: %q, %v", i, res.Stdout, err)
			}
		})
	}
	all.Wait()
}

// carrying counts the processes that carry a word among their arguments. The
// word comes by standard input, so that the search does not find itself.
func (s subject) carrying(word string) int {
	s.Helper()
	res := s.run(host.Command{Args: sh(`grep -lsF -f - /proc/[0-9]*/cmdline | wc -l`), Stdin: strings.NewReader(word)})
	n, err := strconv.Atoi(strings.TrimSpace(string(res.Stdout)))
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// await waits until at least so many carry the word; 0: none.
func (s subject) await(word string, want int) {
	s.Helper()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		n := s.carrying(word)
		if n == want || want > 0 && n > want {
			return
		}
		if time.Now().After(until) {
			s.Fatalf("%d processes carry %s", n, word)
		}
	}
}

// family starts a child, a child in a session of its own, and an orphan in one
// with an empty environment but a parent that lives.
const family = `
sh -c 'sleep 300; :' "$1" &
setsid sh -c 'sleep 300; :' "$1" &
env -i setsid sh -c 'sleep 300; :' "$1" &
(setsid sh -c 'sleep 300; :' "$1" &)
wait`

const stubborn = `sh -c 'trap "" TERM HUP; while :; do sleep 1; done' "$1" & trap "" TERM HUP; wait`

func (s subject) cancelled(script string, atLeast int) {
	word := rand.Text()
	ctx, cancel := context.WithCancel(s.within(30 * time.Second))
	s.ends(word, atLeast, cancel, func() error {
		res, err := s.Host.Run(ctx, host.Command{Args: sh("echo early; "+script, word)})
		if string(res.Stdout) != "early\n" {
			s.Errorf("kept %q", res.Stdout)
		}
		return err
	})
}

func (s subject) cancelledProcess() {
	word := rand.Text()
	ctx, cancel := context.WithCancel(s.within(30 * time.Second))
	p, err := s.Start(ctx, host.Command{Args: sh(family, word)})
	if err != nil {
		s.Fatal(err)
	}
	s.ends(word, 4, cancel, func() error { _, err := p.Wait(); return err })
}

// ends cancels what carries the word once enough of it is there.
func (s subject) ends(word string, atLeast int, cancel func(), wait func() error) {
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	s.await(word, atLeast)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		s.Errorf("error is %v", err)
	}
	if n := s.carrying(word); n != 0 {
		s.Errorf("%d processes are left", n)
	}
}

func (s subject) busy() {
	ctx, cancel := context.WithCancel(s.within(time.Minute))
	word := rand.Text()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { s.Host.Run(ctx, host.Command{Args: sh("sleep 300; :", word)}) })
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	all.Wait()
	s.await(word, 0)
}

// broken is a reader that fails after some bytes.
var errBroken = errors.New("the disk is on fire")

func broken(after int64) io.Reader {
	r, w := io.Pipe()
	go func() {
		io.Copy(w, io.LimitReader(rand.Reader, after))
		w.CloseWithError(errBroken)
	}()
	return r
}

func (s subject) badInput() {
	_, err := s.Host.Run(s.within(30*time.Second), host.Command{Args: []string{"cat"}, Stdin: broken(10)})
	if !errors.Is(err, errBroken) {
		s.Errorf("error is %v", err)
	}
}

func (s subject) duplex() {
	p := s.start(sh("echo warn >&2; cat; exit 3")...)
	buf := make([]byte, 5)
	for _, word := range []string{"one..", "two.."} { // each answer before the next question
		io.WriteString(p, word)
		if _, err := io.ReadFull(p, buf); err != nil || string(buf) != word {
			s.Fatalf("got %q, %v", buf, err)
		}
	}
	p.CloseWrite()
	rest, _ := io.ReadAll(p)
	if res, err := p.Wait(); err != nil || res.Code != 3 || string(res.Stderr) != "warn\n" || len(rest) != 0 {
		s.Errorf("ended as %+v, %v, with %q left", res, err, rest)
	}
}

package hosttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

// running counts the processes that carry a word among their arguments. The
// word comes by standard input, so that the search does not find itself.
func running(t *testing.T, h host.Host, word string) int {
	t.Helper()
	const search = `grep -lsF -f - /proc/[0-9]*/cmdline | wc -l`
	res, err := h.Run(within(t, 30*time.Second), host.Command{Args: sh(search), Stdin: strings.NewReader(word)})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range bytes.TrimSpace(res.Stdout) {
		n = n*10 + int(c-'0')
	}
	return n
}

func waitRunning(t *testing.T, h host.Host, word string, ok func(int) bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		n := running(t, h, word)
		if ok(n) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d processes carry %s", n, word)
		}
	}
}

func none(n int) bool { return n == 0 }

// family starts a child, a child in a session of its own, and an orphan in one
// with an empty environment but a parent that lives.
const family = `
sh -c 'sleep 300; :' "$1" &
setsid sh -c 'sleep 300; :' "$1" &
env -i setsid sh -c 'sleep 300; :' "$1" &
(setsid sh -c 'sleep 300; :' "$1" &)
wait`

func timeouts(t *testing.T, h host.Host) {
	word := rand.Text()
	began := time.Now()
	res, err := h.Run(within(t, 30*time.Second), host.Command{Args: sh("echo early; "+family, word), Timeout: time.Second})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if string(res.Stdout) != "early\n" {
		t.Errorf("what was printed before is %q", res.Stdout)
	}
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("it took %s", d)
	}
	waitRunning(t, h, word, none)
}

// timeoutThere reads the limit off the host's process list.
func timeoutThere(t *testing.T, h host.Host) {
	word := rand.Text()
	res := run(t, h, host.Command{Timeout: 9 * time.Second, Args: sh(
		`tr '\0' ' ' < /proc/$$/cmdline; echo; tr '\0' ' ' < /proc/$PPID/cmdline`, word)})
	if !strings.Contains(string(res.Stdout), "timeout -k 5") {
		t.Errorf("no timeout above the command:\n%s", res.Stdout)
	}
}

func grandchildren(t *testing.T, h host.Host) {
	cancelled(t, h, family, 4)
}

func stubborn(t *testing.T, h host.Host) {
	cancelled(t, h, `sh -c 'trap "" TERM HUP; while :; do sleep 1; done' "$1" & trap "" TERM HUP; wait`, 1)
}

func cancelled(t *testing.T, h host.Host, script string, atLeast int) {
	t.Helper()
	word := rand.Text()
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	ended := make(chan error, 1)
	go func() {
		_, err := h.Run(ctx, host.Command{Args: sh(script, word)})
		ended <- err
	}()
	waitRunning(t, h, word, func(n int) bool { return n >= atLeast })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if n := running(t, h, word); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func busy(t *testing.T, h host.Host) {
	ctx, cancel := context.WithCancel(within(t, 60*time.Second))
	word := rand.Text()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { h.Run(ctx, host.Command{Args: sh("sleep 300; :", word)}) })
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	all.Wait()
	waitRunning(t, h, word, none)
}

// broken is a reader that fails after some bytes.
type broken struct{ left int }

var errBroken = errors.New("the disk is on fire")

func (b *broken) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBroken
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

func badInput(t *testing.T, h host.Host) {
	_, err := h.Run(within(t, 30*time.Second), host.Command{Args: []string{"cat"}, Stdin: &broken{left: 10}})
	if !errors.Is(err, errBroken) {
		t.Errorf("error is %v", err)
	}
}

func duplex(t *testing.T, h host.Host) {
	p, err := h.Start(within(t, 30*time.Second), host.Command{Args: sh("echo warn >&2; cat; exit 3")})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	for _, word := range []string{"one..", "two.."} { // each answer before the next question
		io.WriteString(p, word)
		if _, err := io.ReadFull(p, buf); err != nil || string(buf) != word {
			t.Fatalf("got %q, %v", buf, err)
		}
	}
	p.CloseWrite()
	rest, _ := io.ReadAll(p)
	res, err := p.Wait()
	if err != nil || res.Code != 3 || string(res.Stderr) != "warn\n" || len(rest) != 0 {
		t.Errorf("ended as %+v, %v, with %q left", res, err, rest)
	}
}

func stop(t *testing.T, h host.Host) {
	p, err := h.Start(within(t, 30*time.Second), host.Command{Args: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.Stop(within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
	if res, err := p.Wait(); err != nil || res.Code != 0 || time.Since(began) > 1900*time.Millisecond {
		t.Errorf("end of input ended it as %+v, %v after %s", res, err, time.Since(began))
	}
}

func stopDeaf(t *testing.T, h host.Host) {
	word := rand.Text()
	p, err := h.Start(within(t, 60*time.Second), host.Command{Args: sh(family, word)})
	if err != nil {
		t.Fatal(err)
	}
	waitRunning(t, h, word, func(n int) bool { return n >= 4 })
	if err := p.Stop(within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
	if n := running(t, h, word); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func upload(t *testing.T, h host.Host) {
	dir := t.TempDir()
	for _, name := range []string{"plain", "two words", "-rf", "$HOME", "it's", "new\nline", `back\slash`, "*"} {
		path := filepath.Join(dir, name)
		for _, content := range []string{"", "first", strings.Repeat("longer ", 100)} {
			if err := h.Upload(within(t, 30*time.Second), strings.NewReader(content), path, 0o640); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			info, _ := os.Stat(path)
			if err != nil || string(got) != content || info.Mode().Perm() != 0o640 {
				t.Errorf("%q is %q with mode %v, %v", name, got, info.Mode(), err)
			}
		}
	}
	alone(t, dir, 8)
}

// alone checks that nothing but so many files is in dir.
func alone(t *testing.T, dir string, n int) {
	t.Helper()
	if entries, _ := os.ReadDir(dir); len(entries) != n {
		t.Errorf("%d files in the folder, want %d: %v", len(entries), n, entries)
	}
}

func interrupted(t *testing.T, h host.Host) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := h.Upload(within(t, 30*time.Second), strings.NewReader("old"), path, 0o600); err != nil {
		t.Fatal(err)
	}
	err := h.Upload(within(t, 30*time.Second), &broken{left: 1 << 20}, path, 0o600)
	if !errors.Is(err, errBroken) {
		t.Errorf("a reader that fails: %v", err)
	}
	silent, write := io.Pipe() // a reader that says something, then nothing
	defer write.Close()
	go write.Write([]byte("new"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := h.Upload(ctx, silent, path, 0o600); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reader that stalls: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the file is now %q", got)
	}
	alone(t, dir, 1)
}

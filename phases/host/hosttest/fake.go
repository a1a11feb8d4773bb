package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/hbohlen/deployer/phases/host"
)

// Fake is a host whose answers are written in the test. Hosts made by Fresh
// share its script and its record.
type Fake struct {
	*world
	lost chan struct{}
	gone sync.Once
}

// world is what outlives a connection.
type world struct {
	t    testing.TB
	name string

	mu    sync.Mutex
	rules []*Rule
	calls []host.Command
	files map[string]File
	dials int
	down  error // what Fresh returns; nil: it connects
	user  string
}

// File is a file on a Fake.
type File struct {
	Content []byte
	Mode    fs.FileMode
}

var _ host.Host = (*Fake)(nil)

// New makes a host that knows no commands, logged in as root.
func New(t testing.TB, name string) *Fake {
	w := &world{t: t, name: name, files: map[string]File{}, user: "root"}
	t.Cleanup(w.finished)
	return w.connect()
}

func (w *world) connect() *Fake {
	f := &Fake{world: w, lost: make(chan struct{})}
	w.dials++
	return f
}

// LogInAs changes the login user.
func (w *world) LogInAs(user string) { w.user = user }

// Calls is every command so far, in order, with its input as a string reader.
func (w *world) Calls() []host.Command {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]host.Command(nil), w.calls...)
}

// Lines is every command so far as one line each, for comparing.
func (w *world) Lines() []string {
	var out []string
	for _, c := range w.Calls() {
		line := strings.Join(c.Args, " ")
		if c.Privileged {
			line = "sudo " + line
		}
		out = append(out, line)
	}
	return out
}

// Dials counts the connections, the first included.
func (w *world) Dials() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// File is what was uploaded or put there.
func (w *world) File(path string) (File, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, ok := w.files[path]
	return f, ok
}

// Put places a file on the host.
func (w *world) Put(path, content string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[path] = File{Content: []byte(content), Mode: 0o644}
}

// Unreachable makes Fresh fail; nil makes it connect again.
func (w *world) Unreachable(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = err
}

// Lose cuts this connection: what runs and what comes gets Kind Lost.
func (f *Fake) Lose() { f.gone.Do(func() { close(f.lost) }) }

func (f *Fake) Name() string          { return f.name }
func (f *Fake) Login() (string, bool) { return f.user, f.user == "root" }
func (f *Fake) Lost() <-chan struct{} { return f.lost }
func (f *Fake) Close() error          { f.Lose(); return nil }

// Fresh is another connection to the same world.
func (f *Fake) Fresh(ctx context.Context) (host.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down); err != nil {
		return nil, err
	}
	return f.connect(), nil
}

func (f *Fake) check(ctx context.Context) error {
	select {
	case <-f.lost:
		return f.error(host.Lost, errors.New("the connection is gone"))
	default:
		return ctx.Err()
	}
}

func (f *Fake) error(kind host.Kind, err error) error {
	return &host.Error{Kind: kind, Host: f.name, Err: err}
}

// Upload records the file, whole or not at all.
func (f *Fake) Upload(ctx context.Context, from io.Reader, path string, mode fs.FileMode) error {
	if err := f.check(ctx); err != nil {
		return err
	}
	content, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[path] = File{Content: content, Mode: mode}
	return nil
}

// Download gives what was put or uploaded.
func (f *Fake) Download(ctx context.Context, path string, w io.Writer) error {
	if err := f.check(ctx); err != nil {
		return err
	}
	file, ok := f.File(path)
	if !ok {
		return fmt.Errorf("cannot read %s on %s: %w", path, f.name, fs.ErrNotExist)
	}
	_, err := io.Copy(w, bytes.NewReader(file.Content))
	return err
}

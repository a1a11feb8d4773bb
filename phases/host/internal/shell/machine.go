package shell

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/host"
)

// A connection carries this many commands at a time; more wait. OpenSSH allows
// ten sessions by default: the other two are for ending commands, which must
// not wait for the commands that are to be ended.
const (
	slots = 8
	spare = 2
)

// Transport starts shell lines on a host.
type Transport interface {
	Open(line string) (*Session, error)
}

// Session is one started line. Wait returns when its output is at an end too;
// an error from it means that nobody knows how the line ended.
type Session struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.Reader
	Wait           func() (code int, signal string, err error)
	Close          func() error
}

// Machine runs commands over a Transport.
type Machine struct {
	name, addr string
	via        Transport
	slots      chan struct{}
	spare      chan struct{}
	user       string
	root       bool
}

// New makes a Machine; call LogIn before anything else.
func New(name, addr string, via Transport) *Machine {
	return &Machine{
		name: name, addr: addr, via: via,
		slots: make(chan struct{}, slots), spare: make(chan struct{}, spare),
	}
}

// Name is the host's name in deployer.yaml.
func (m *Machine) Name() string { return m.name }

// Login tells who is logged in.
func (m *Machine) Login() (string, bool) { return m.user, m.root }

// LogIn learns who is logged in, and thereby that commands can be run at all.
func (m *Machine) LogIn(ctx context.Context) error {
	const ask = `echo "deployer: $(id -u) $(id -un)"`
	res, err := m.Run(ctx, host.Command{Args: []string{"/bin/sh", "-c", ask}})
	if err != nil {
		return err
	}
	var uid int
	before, who, _ := strings.Cut(string(res.Stdout), "deployer: ")
	if _, err := fmt.Sscanf(who, "%d %s", &uid, &m.user); err != nil {
		return m.Fail(host.Unknown, fmt.Errorf("the login is accepted but runs no commands: %.200s%s", before, lastLine(res)),
			"give the login user a shell, and no forced command")
	}
	if before != "" {
		return m.Fail(host.Unknown, fmt.Errorf("the login shell prints %.60q before a command's output", before),
			"print only in interactive shells: begin ~/.bashrc with  [ -z \"$PS1\" ] && return")
	}
	m.root = uid == 0
	return nil
}

// Run runs cmd to its end.
func (m *Machine) Run(ctx context.Context, cmd host.Command) (host.Result, error) {
	p, err := m.begin(ctx, cmd, collect(nil))
	if err != nil {
		return host.Result{Code: -1}, err
	}
	go p.feed(cmd.Stdin)
	return p.Wait()
}

// Start begins cmd with its streams left open.
func (m *Machine) Start(ctx context.Context, cmd host.Command) (host.Process, error) {
	if cmd.Stdin != nil {
		return nil, errors.New("a started command's input is its process: set no Stdin")
	}
	p, err := m.begin(ctx, cmd, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (m *Machine) begin(ctx context.Context, cmd host.Command, out *tail) (*process, error) {
	id := strings.ToLower(rand.Text())
	line, err := Line(cmd, id, cmd.Privileged && !m.root)
	if err != nil {
		return nil, fmt.Errorf("cannot run a command on %s: %w", m.name, err)
	}
	if err := take(ctx, m.slots); err != nil {
		return nil, fmt.Errorf("%s was not started on %s: %w", cmd.Args[0], m.name, err)
	}
	sess, err := m.via.Open(line)
	if err != nil {
		<-m.slots
		return nil, err
	}
	sess.Stdin = &input{to: sess.Stdin}
	p := &process{m: m, cmd: cmd, id: id, sess: sess, out: out, err: collect(cmd.Stderr),
		ended: make(chan struct{}), done: make(chan struct{})}
	p.follow(ctx)
	return p, nil
}

func take(ctx context.Context, from chan struct{}) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case from <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Fail makes the error type that connections and commands return.
func (m *Machine) Fail(kind host.Kind, err error, hint ...string) *host.Error {
	return &host.Error{Kind: kind, Host: m.name, Addr: m.addr, Err: err, Hint: hint}
}

//go:embed kill.sh
var killScript string

func lastLine(res host.Result) string {
	lines := bytes.Split(bytes.TrimSpace(res.Stderr), []byte("\n"))
	if last := string(lines[len(lines)-1]); last != "" {
		return last
	}
	return fmt.Sprintf("exit status %d", res.Code)
}

// asRoot ends a command that sudo started, or at least tries as the login user.
const asRoot = `read -r id; printf '%s\n' "$id" | sudo -n -- /bin/sh -c "$0" || printf '%s\n' "$id" | /bin/sh -c "$0"`

// kill ends the command with this id, and all that it started.
func (m *Machine) kill(id string, privileged bool) error {
	line := wrap(killScript)
	if privileged && !m.root {
		line = wrap("exec /bin/sh -c " + Quote(asRoot) + " " + Quote(killScript))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := take(ctx, m.spare); err != nil {
		return err
	}
	defer func() { <-m.spare }()
	sess, err := m.via.Open(line)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { sess.Close() })()
	_, _ = io.WriteString(sess.Stdin, id+"\n")
	sess.Stdin.Close()
	said := &tail{max: 4 << 10}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(io.Discard, sess.Stdout) })
	both.Go(func() { io.Copy(said, sess.Stderr) })
	code, _, err := sess.Wait()
	both.Wait()
	if err == nil && code != 0 {
		err = errors.New(lastLine(host.Result{Code: code, Stderr: said.last()}))
	}
	return err
}

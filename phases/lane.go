package phases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// Lane is one host within a run: its own failure domain. All that deployer does
// to a host goes through its lane.
type Lane struct {
	Name   string
	Conf   *runbooks.Host
	Host   host.Host     // the connection; nil: not reached
	Seen   agent.Facts   // while planning, read only
	Skew   time.Duration // of the host's clock then, at least
	Survey nix.Survey
	Before agent.Facts // under the lock, by the agent
	To     nix.System
	Status state.Status
	Recipe agent.Recipe // what is stored on the host for this run
	Locked bool
	Files  []agent.File      // declared files as they were: a rollback puts them back
	Data   []agent.Operation // the provider's way back to the snapshots: armed with the guard, for nothing is switched before
	Reboot string            // why the new system can only be booted; "" where that is not so
	Kept   agent.Lane        // what the host knew of the run when this process took it up

	agents      Agents
	opening     sync.Mutex
	client      *agent.Client
	boot        string // of the host, when the agent was started
	reattaching sync.Mutex
	say         func(text string) // notes something in the record of the step that works with it; nil: between steps
	byHost      bool              // its own guard took it back
	fresh       *Lane             // a second connection, for judging
	holder      agent.LockArgs    // the lock that this lane holds, with its epoch
	guarded     time.Time         // until when the host's guard waits for a decision, as far as is known
	later       sync.WaitGroup    // outputs that are being fetched
	now         agent.Facts       // when this process took the run up
	journal     string            // the run whose records the host keeps
	unsent      unsent

	rejected, why string   // the system that failed here
	chosen        bool     // its recipe is not yet the one on the host
	became        []string // what became of its data
	refused       error    // why its data could not go back, and stayed as it was
}

// Changed tells whether the lane has anything to restore.
func (l *Lane) Changed() bool { return len(l.Recipe.Operations) > 0 }

// Current is the best that is known of the host before the run.
func (l *Lane) Current() agent.Facts {
	if l.Before.System != "" {
		return l.Before
	}
	return l.Seen
}

// Unchanged tells whether the host runs and boots the wanted system already.
func (l *Lane) Unchanged() bool {
	f := l.Current()
	return l.To.Out != "" && f.System == l.To.Out && f.Profile.System == l.To.Out && (f.Boot.System == "" || f.Boot.System == l.To.Out)
}

// Call runs one operation of the host's agent. The agent is put on the host,
// by digest, when it is first needed. Where the connection goes on a host whose
// lock is held, what may be asked twice is asked again over a new one: a run
// does not end for a link that comes back.
func (l *Lane) Call(ctx context.Context, op string, args, result any) error {
	if agent.Repeatable(op) {
		return l.insist(ctx, op, args, result)
	}
	return l.once(ctx, op, args, result)
}

func (l *Lane) once(ctx context.Context, op string, args, result any) error {
	c, err := l.agent(ctx)
	if err != nil {
		return err
	}
	return l.send(ctx, c, op, args, result)
}

// booted is the host's boot that its agent was started in.
func (l *Lane) booted() string {
	l.opening.Lock()
	defer l.opening.Unlock()
	return l.boot
}

// lostTries bounds what an operation is asked for that ends its own connection.
const lostTries = 3

// insist is Call for what may be asked twice. A host that has booted meanwhile is
// not what it was when a change of it was asked for: only looked at, or restored. To have the lock said again, over
// the new connection, waits for what was under way on the old one.
func (l *Lane) insist(ctx context.Context, op string, args, result any) error {
	for try := 1; ; try++ {
		boot, err := l.booted(), l.once(ctx, op, args, result)
		if !l.Locked || !IsLost(err) || try == lostTries {
			return err
		}
		if l.say != nil {
			l.say(fmt.Sprintf("the connection was lost; connecting again, for up to %s", l.patient().Round(time.Second)))
		}
		if rerr := l.Reattach(ctx, l.patient()); rerr != nil {
			return rerr
		}
		if l.booted() != boot && agent.Writes(op) && op != agent.OpRestore {
			return fmt.Errorf("the host has booted meanwhile: %w", err)
		}
	}
}

// agent is the lane's agent; the first caller starts it.
func (l *Lane) agent(ctx context.Context) (*agent.Client, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.client == nil {
		if err := l.open(ctx); err != nil {
			return nil, err
		}
	}
	return l.client, nil
}

// Raw is Call for callers that have JSON.
func (l *Lane) Raw(ctx context.Context, op string, args json.RawMessage) (json.RawMessage, error) {
	var out json.RawMessage
	err := l.Call(ctx, op, args, &out)
	return out, err
}

// Verb starts one of the agent's verbs in a session of its own. Its streams are
// the caller's; it ends with ctx, and with the connection.
func (l *Lane) Verb(ctx context.Context, args ...string) (host.Process, error) {
	if _, err := l.agent(ctx); err != nil { // puts it there
		return nil, err
	}
	digest, _, err := l.agents.For(l.Seen.Arch)
	if err != nil {
		return nil, err
	}
	return l.Host.Start(ctx, host.Command{Args: append([]string{agent.LauncherPath, "run", digest}, args...), Privileged: true})
}

// started is the lane's agent, nil where none was needed yet.
func (l *Lane) started() *agent.Client {
	l.opening.Lock()
	defer l.opening.Unlock()
	return l.client
}

func (l *Lane) open(ctx context.Context) error {
	digest, content, err := l.agents.For(l.Seen.Arch)
	if err != nil {
		return Precondition(err)
	}
	c, err := l.start(ctx, digest)
	if missing(err) {
		if err = l.install(ctx, digest, content); err == nil {
			c, err = l.start(ctx, digest)
		}
	}
	if err != nil {
		return err
	}
	l.client = c
	return nil
}

// notInstalled is the launcher's answer for a digest it does not have; noLauncher
// the shell's where there is no launcher.
type notInstalled struct{ code int }

func (n notInstalled) Error() string {
	return fmt.Sprintf("the agent is not there (exit code %d)", n.code)
}

func missing(err error) bool {
	var n notInstalled
	return errors.As(err, &n)
}

// start runs the agent over one exec of the connection. Its standard input is
// its lease: it ends when that does.
func (l *Lane) start(ctx context.Context, digest string) (*agent.Client, error) {
	// The process outlives ctx, which may only be about opening it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	p, err := l.Host.Start(life, host.Command{Args: []string{agent.LauncherPath, "run", digest, "serve"}, Privileged: true})
	if err != nil {
		end()
		return nil, err
	}
	c := agent.NewClient(stream{p, end})
	hello, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var h agent.Hello
	err = c.Call(hello, agent.OpHello, nil, &h)
	if err == nil && h.Digest != digest {
		err = fmt.Errorf("the agent says it is %.12s, want %.12s", h.Digest, digest)
	}
	if err == nil {
		l.boot = h.BootID
		return c, nil
	}
	_ = c.Close()
	return nil, l.notStarted(p, err)
}

func (l *Lane) notStarted(p host.Process, cause error) error {
	res, err := p.Wait()
	if err != nil {
		return err
	}
	switch {
	case res.Code == agent.ExitNotInstalled, res.Code == 127, strings.Contains(string(res.Stderr), "command not found"):
		return notInstalled{res.Code}
	}
	return fmt.Errorf("cannot start the agent: %w (exit code %d: %s)", cause, res.Code, strings.TrimSpace(string(res.Stderr)))
}

func (l *Lane) install(ctx context.Context, digest string, content func() (io.ReadCloser, error)) error {
	if _, root := l.Host.Login(); root {
		if err := l.run(ctx, strings.NewReader(agent.Launcher), "sh", "-c", agent.InstallLauncher); err != nil {
			return fmt.Errorf("cannot write the launcher: %w", err)
		}
	}
	f, err := content()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.run(ctx, f, agent.LauncherPath, "install", digest); err != nil {
		return fmt.Errorf("cannot put the agent on the host: %w", err)
	}
	return nil
}

func (l *Lane) run(ctx context.Context, stdin io.Reader, args ...string) error {
	res, err := l.Host.Run(ctx, host.Command{Args: args, Stdin: stdin, Privileged: true})
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", res.Code, strings.TrimSpace(string(res.Stderr)))
	}
	return err
}

// ByRoot is what root types once on a host without deployer-host.nix.
func ByRoot(user, address string) []string {
	return []string{
		"deployer debug launcher | ssh root@" + address + " '" + strings.ReplaceAll(agent.InstallLauncher, "\n", "; ") + "'",
		"# and in the host's configuration: security.sudo.extraRules = [{ users = [\"" + user + "\"]; commands = [{ command = \"" + agent.LauncherPath + "\"; options = [\"NOPASSWD\"]; }]; }];",
		"# or both, and a guard that outlives a reboot, by a module for hosts: deployer init --module",
	}
}

// stream is an agent's process as a ReadWriteCloser. An agent ends when its input
// does; one that hangs is ended a little later.
type stream struct {
	host.Process
	end func()
}

func (s stream) Close() error {
	time.AfterFunc(2*time.Second, s.end)
	return s.CloseWrite()
}

// Fresh reaches the host over a new connection and a new login, with an agent
// of its own. Judgement is only ever passed over such a connection: a broken
// sshd keeps old sessions working.
func (l *Lane) Fresh(ctx context.Context) (*Lane, error) {
	h, err := l.Host.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	n := &Lane{Name: l.Name, Conf: l.Conf, Host: h, Seen: l.Seen, Before: l.Before, To: l.To, agents: l.agents, holder: l.holder}
	if err := n.open(ctx); err != nil {
		_ = h.Close()
		return nil, err
	}
	return n, nil
}

// Judge is the connection that checks use; the first call makes it.
func (l *Lane) Judge(ctx context.Context) (*Lane, error) {
	if l.fresh != nil && !l.fresh.gone() {
		return l.fresh, nil
	}
	n, err := l.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	l.fresh = n
	return n, nil
}

// Forget drops the connection for judging: what comes next is judged over one
// that is made afterwards.
func (l *Lane) Forget() {
	if l.fresh != nil {
		l.fresh.Drop()
		l.fresh = nil
	}
}

// gone tells whether the connection has ended, or the agent at its other end.
func (l *Lane) gone() bool {
	c := l.started()
	return l.Host == nil || ended(l.Host.Lost()) || c != nil && ended(c.Lost())
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Reattach makes sure of a working connection, for as long as patience lasts:
// the present one, or a new one in its place. Denied logins are not repeated,
// since sshd punishes them.
func (l *Lane) Reattach(ctx context.Context, patience time.Duration) error {
	l.reattaching.Lock() // who comes second finds a working one
	defer l.reattaching.Unlock()
	if !l.gone() && l.started() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		n, err := l.Fresh(ctx)
		if err == nil {
			l.Drop()
			l.opening.Lock()
			l.Host, l.client, l.boot, l.fresh = n.Host, n.client, n.boot, nil
			l.opening.Unlock()
			return l.relock(ctx)
		}
		again := time.Second
		var he *host.Error
		switch {
		case errors.As(err, &he) && he.Kind == host.Denied && l.Reboots(): // it lets nobody in yet
			again = deniedAgain
		case he != nil && (he.Kind == host.Denied || he.Kind == host.HostKey):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(again):
		}
	}
}

// Drop closes the lane's connections. The host keeps what it has.
func (l *Lane) Drop() {
	l.later.Wait()
	l.Forget()
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.client != nil {
		_ = l.client.Close()
		l.client = nil
	}
	if l.Host != nil {
		_ = l.Host.Close()
	}
}

// IsLost tells whether err means that the connection went away, so that nobody
// knows how the operation ended.
func IsLost(err error) bool {
	var he *host.Error
	if errors.As(err, &he) {
		return he.Kind == host.Lost
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, agent.ErrLost)
}

// Passing tells whether an error may go away by itself: a connection that was
// refused, timed out or lost. A login that was denied is not repeated.
func Passing(err error) bool {
	var he *host.Error
	if errors.As(err, &he) {
		return he.Kind == host.Refused || he.Kind == host.Timeout || he.Kind == host.Lost
	}
	return err != nil && IsLost(err)
}

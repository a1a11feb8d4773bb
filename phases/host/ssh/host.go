package ssh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/internal/shell"
)

// Host is one machine over one SSH connection.
type Host struct {
	*shell.Machine
	config Config
	link   *link
	lost   chan struct{}
	close  sync.Once
}

var _ host.Host = (*Host)(nil)

// Dial connects, checks the host's key, logs in and runs a first command. It
// tries once.
func Dial(ctx context.Context, c Config) (*Host, error) {
	if c.Name == "" {
		c.Name = c.Address
	}
	l, err := connect(ctx, c, nil, 0)
	if err != nil {
		return nil, err
	}
	h := &Host{config: c, link: l, lost: make(chan struct{})}
	h.Machine = shell.New(c.Name, l.t.addr(), h)
	go func() {
		l.Wait()
		h.Close()
		close(h.lost)
	}()
	go l.watch(c.limit(), h.lost)
	if err := h.first(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// first runs the first command. Where commands hang, one that would end it would
// hang too, so its time ends the connection.
func (h *Host) first(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, 2*h.config.limit())
	defer cancel()
	defer context.AfterFunc(ctx, func() { h.Close() })()
	err := h.LogIn(context.WithoutCancel(ctx))
	if err != nil && ctx.Err() != nil {
		return failure(parent, h.config, h.link.t, context.Cause(ctx))
	}
	return err
}

// Open starts a line in a session of its own: no terminal, no agent forwarding.
func (h *Host) Open(line string) (*shell.Session, error) {
	sess, err := h.session()
	if err != nil {
		return nil, err
	}
	stdin, err1 := sess.StdinPipe()
	stdout, err2 := sess.StdoutPipe()
	stderr, err3 := sess.StderrPipe()
	if err := errors.Join(err1, err2, err3, sess.Start(line)); err != nil {
		sess.Close()
		return nil, h.Fail(host.Lost, fmt.Errorf("the connection went away when a command began: %w", err))
	}
	return &shell.Session{Stdin: stdin, Stdout: stdout, Stderr: stderr, Close: sess.Close,
		Wait: func() (int, string, error) { return outcome(sess.Wait()) }}, nil
}

// session opens a session. sshd counts one that has ended until it has tidied
// up, so a refusal may be over a moment later; nothing was run by then.
func (h *Host) session() (*ssh.Session, error) {
	for tries := 0; ; tries++ {
		sess, err := h.link.NewSession()
		var refused *ssh.OpenChannelError
		switch {
		case err == nil:
			return sess, nil
		case !errors.As(err, &refused):
			return nil, h.Fail(host.Lost, fmt.Errorf("the connection is gone: %w", err))
		case tries == 60:
			return nil, h.Fail(host.Refused, fmt.Errorf("it opens no further session: %w", err), "set  MaxSessions 10  in sshd_config, its default")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func outcome(err error) (int, string, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, "", nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), exit.Signal(), nil
	}
	return -1, "", err // *ssh.ExitMissingError: the end was never told
}

// Fresh dials anew, once: new connection, new login, the same configuration.
func (h *Host) Fresh(ctx context.Context) (host.Host, error) {
	fresh, err := Dial(ctx, h.config)
	if err != nil {
		return nil, err // not a nil *Host in an interface
	}
	return fresh, nil
}

// Lost is closed when the connection is gone.
func (h *Host) Lost() <-chan struct{} { return h.lost }

// Close ends the connection and those to its jump hosts.
func (h *Host) Close() error {
	var err error
	h.close.Do(func() { err = h.link.Close() })
	return err
}

// NixStoreURL is this host for `nix copy --to`; it needs NixSSHOpts.
func (h *Host) NixStoreURL() string {
	address := h.config.Address
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return "ssh://" + h.link.t.user + "@" + address
}

// NixSSHOpts are the words of NIX_SSHOPTS with which ssh goes where this
// connection went. The address in NixStoreURL is the one of deployer.yaml, so an
// alias brings its jump hosts and keys with it. A silent peer is noticed as soon
// as here. Nix splits at blanks: a file name with one is refused by ssh, not misread.
func (h *Host) NixSSHOpts() []string {
	c := h.config
	third := int(c.limit().Seconds()) / 3
	opts := []string{"-p", h.link.t.port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", fmt.Sprint("ConnectTimeout=", 3*third), "-o", fmt.Sprint("ServerAliveInterval=", third), "-o", "ServerAliveCountMax=2"}
	if c.ConfigFile != "" {
		opts = append([]string{"-F", c.ConfigFile}, opts...)
	}
	if c.Key != "" {
		opts = append(opts, "-i", c.Key)
	}
	if c.KnownHosts != "" {
		opts = append(opts, "-o", "UserKnownHostsFile="+c.KnownHosts)
	}
	return opts
}

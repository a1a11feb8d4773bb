package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/melbahja/goph"
	"golang.org/x/crypto/ssh"
)

// maxHops ends configurations whose jump hosts lead back to themselves.
const maxHops = 8

// link is an open connection with the jump hosts that it leads through.
type link struct {
	*goph.Client
	t    *target
	via  *link
	wire *wire
}

// Close begins at the near end: what leads through a jump host is closed by
// sending to it, which blocks when that one is silent.
func (l *link) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.via.Close(), l.wire.Close())
}

// connect makes one attempt at one host: sshd punishes repeated failures. The
// way there is via, which is closed if it fails, or what ssh_config says.
func connect(ctx context.Context, c Config, via *link, depth int) (*link, error) {
	t, err := resolve(ctx, c)
	if err != nil {
		via.Close()
		return nil, failure(ctx, c, nil, err)
	}
	if via == nil {
		if via, err = through(ctx, c, t, depth); err != nil {
			return nil, err
		}
	}
	l, err := t.login(ctx, c, via)
	if err != nil {
		via.Close()
		return nil, err
	}
	return l, nil
}

// through connects to the last jump host, by way of those before it.
func through(ctx context.Context, c Config, t *target, depth int) (via *link, err error) {
	switch {
	case t.proxyCommand != "" && t.proxyCommand != "none":
		return nil, failure(ctx, c, t, errors.New("ssh_config gives it a ProxyCommand, which is not supported"), "use  ProxyJump HOST  in ssh_config")
	case len(t.jumps) == 0 || t.jumps[0] == "none":
		return nil, nil
	case depth >= maxHops:
		return nil, failure(ctx, c, nil, fmt.Errorf("more than %d jump hosts", maxHops))
	}
	for _, spec := range t.jumps {
		if via, err = connect(ctx, hop(c, spec), via, depth+1); err != nil {
			return nil, err
		}
	}
	return via, nil
}

// login dials t and authenticates, all within the handshake's time.
func (t *target) login(parent context.Context, c Config, via *link) (*link, error) {
	ctx, cancel := context.WithTimeout(parent, c.limit())
	defer cancel()
	keys, err := newHostKeys(t, c.AcceptNew)
	if err != nil {
		return nil, failure(parent, c, t, err, "mend or remove that line")
	}
	ring := gather(t, c)
	defer ring.close()
	dial := (&net.Dialer{}).DialContext
	if via != nil {
		dial = via.DialContext
	}
	conn, err := dial(ctx, "tcp", t.addr())
	if err != nil {
		return nil, failure(parent, c, t, err)
	}
	l := &link{t: t, via: via, wire: &wire{Conn: conn}}
	if l.Client, err = l.handshake(ctx, keys, ring); err != nil {
		conn.Close()
		return nil, l.refused(parent, c, keys, ring, err)
	}
	return l, nil
}

// handshake cuts the connection when ctx ends: a server that says nothing would
// hold it for ever, and a connection through a jump host knows no deadlines.
func (l *link) handshake(ctx context.Context, keys *hostKeys, ring *keyring) (*goph.Client, error) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	auth, t := goph.Auth{ssh.PublicKeys(ring.signers...)}, l.t
	c, chans, reqs, err := ssh.NewClientConn(l.wire, t.addr(), &ssh.ClientConfig{
		User: t.user, Auth: auth, HostKeyCallback: keys.callback, HostKeyAlgorithms: keys.algorithms(),
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	port, _ := net.LookupPort("tcp", t.port)
	return &goph.Client{
		Client: ssh.NewClient(c, chans, reqs),
		Config: &goph.Config{User: t.user, Addr: t.host, Port: uint(port), Auth: auth, Callback: keys.callback},
	}, nil
}

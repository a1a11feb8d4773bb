package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/melbahja/goph"
	"golang.org/x/crypto/ssh"
)

// maxHops ends configurations whose jump hosts lead back to themselves.
const maxHops = 8

// link is an open connection with the jump hosts that it leads through.
type link struct {
	*goph.Client
	t   *target
	via *link
}

func (l *link) Close() error {
	var err error
	for ; l != nil; l = l.via {
		err = errors.Join(err, l.Client.Close())
	}
	return err
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
	ctx, cancel := context.WithTimeout(parent, cmp.Or(c.handshake, 10*time.Second))
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
	client, err := handshake(ctx, conn, t, keys, ring)
	if err != nil {
		conn.Close()
		return nil, t.refused(parent, c, keys, ring, err)
	}
	return &link{Client: client, t: t, via: via}, nil
}

// handshake cuts the connection when ctx ends: a server that says nothing would
// hold it for ever, and a connection through a jump host knows no deadlines.
func handshake(ctx context.Context, conn net.Conn, t *target, keys *hostKeys, ring *keyring) (*goph.Client, error) {
	if at, ok := ctx.Deadline(); ok {
		conn.SetDeadline(at)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	auth := goph.Auth{ssh.PublicKeys(ring.signers...)}
	c, chans, reqs, err := ssh.NewClientConn(conn, t.addr(), &ssh.ClientConfig{
		User: t.user, Auth: auth, HostKeyCallback: keys.callback, HostKeyAlgorithms: keys.algorithms(),
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	port, _ := net.LookupPort("tcp", t.port)
	return &goph.Client{
		Client: ssh.NewClient(c, chans, reqs),
		Config: &goph.Config{User: t.user, Addr: t.host, Port: uint(port), Auth: auth, Callback: keys.callback},
	}, nil
}

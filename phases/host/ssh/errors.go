package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/hbohlen/deployer/phases/host"
)

// failure is the host.Error for what went wrong before anybody answered.
func failure(ctx context.Context, c Config, t *target, err error, hint ...string) *host.Error {
	e := &host.Error{Kind: host.Unknown, Host: c.Name, Err: err, Hint: hint}
	if t != nil {
		e.Addr = t.addr()
	}
	var dns *net.DNSError
	var open *ssh.OpenChannelError
	var network net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.Err = context.Cause(ctx)
	case errors.As(err, &dns) && !dns.IsTimeout:
		e.Err = fmt.Errorf("no address is known for %s: %w", dns.Name, err)
		e.Hint = []string{"ssh -G " + c.Address + " | grep ^hostname"}
	case errors.As(err, &open) && open.Reason == ssh.Prohibited:
		e.Kind, e.Err = host.Refused, fmt.Errorf("the jump host forwards no connections: %w", err)
		e.Hint = []string{"set  AllowTcpForwarding yes  in the jump host's sshd_config"}
	case errors.As(err, &open) && open.Reason == ssh.ConnectionFailed && !strings.Contains(open.Message, "refused"):
		e.Kind, e.Err = host.Timeout, fmt.Errorf("no answer to the jump host: %w", err)
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &open):
		e.Kind, e.Err = host.Refused, fmt.Errorf("nobody listens there: %w", err)
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		e.Kind, e.Err = host.Timeout, fmt.Errorf("no answer: %w", err)
	}
	if t != nil && len(e.Hint) == 0 && (e.Kind == host.Timeout || e.Kind == host.Refused) {
		e.Hint = []string{fmt.Sprintf("ssh -v -p %s %s@%s true    # says how far it gets", t.port, t.user, t.host)}
	}
	return e
}

// refused is the host.Error for what went wrong once somebody had answered.
func (l *link) refused(ctx context.Context, c Config, keys *hostKeys, ring *keyring, err error) *host.Error {
	e := failure(ctx, c, l.t, err)
	var none *ssh.AlgorithmNegotiationError
	switch {
	case errors.Is(ctx.Err(), context.Canceled), e.Kind == host.Timeout:
	case keys.problem != nil:
		e.Kind = host.HostKey
		e.Err, e.Hint = keys.explain(keys.problem)
	case errors.As(err, &none) && strings.Contains(none.What, "host key") && len(keys.want) > 0:
		e.Kind = host.HostKey
		e.Err, e.Hint = keys.explain(err)
	case strings.Contains(err.Error(), "unable to authenticate"), strings.Contains(err.Error(), "authentication failures"):
		e.Kind = host.Denied
		e.Err, e.Hint = l.t.denied(ring)
	case errors.As(err, &none):
	default:
		e.Kind = host.Refused
		e.Err, e.Hint = l.turnedAway(err)
	}
	return e
}

// turnedAway tells what sshd's last words mean. Since OpenSSH 9.8 it turns away
// every connection from an address that failed to log in; by default for 15 s,
// which four failures reach, to 10 min.
func (l *link) turnedAway(err error) (error, []string) {
	switch said := l.wire.goodbye(); {
	case strings.Contains(said, "Not allowed at this time"):
		return fmt.Errorf("sshd penalises this address for failed logins, and turns away the good ones too: %w", err), []string{
			"wait a minute (ten after many failures), then try once: what is turned away does not prolong it, a failed login does",
			"journalctl -t sshd | grep penalty    # on the host's console: PerSourcePenalties of sshd_config"}
	case said != "":
		err = fmt.Errorf("it said %q: %w", said, err)
	}
	return fmt.Errorf("it ended the connection before the login: %w", err),
		[]string{"sshd may be busy (MaxStartups) or penalise this address for failed logins (PerSourcePenalties): wait a minute, then try once"}
}

func (t *target) denied(ring *keyring) (error, []string) {
	var hints []string
	for _, file := range ring.locked {
		hints = append(hints, "ssh-add "+file+"    # it is encrypted, and no agent holds it")
	}
	copyID := fmt.Sprintf("ssh-copy-id -p %s %s@%s", t.port, t.user, t.host)
	switch n := len(ring.signers); {
	case n == 0 && len(ring.locked) > 0:
		return fmt.Errorf("the login as %s was not accepted: every key is encrypted", t.user), hints
	case n == 0:
		return fmt.Errorf("the login as %s was not accepted: there is no key to try", t.user), append(hints, "ssh-keygen -t ed25519 && "+copyID)
	case n > 5:
		hints = append(hints, "too many keys: name one in deployer.yaml, or set  IdentitiesOnly yes  in ssh_config")
	}
	return fmt.Errorf("the login as %s was not accepted with any of %d keys", t.user, len(ring.signers)), append(hints, copyID)
}

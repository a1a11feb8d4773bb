package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
)

// BootLimit is how long a machine may take from the order to reboot until it
// answers again; deniedAgain is when a login that a booting host denied is
// repeated: later than the penalty that sshd gives for it.
const (
	BootLimit   = 5 * time.Minute
	deniedAgain = 10 * time.Second
)

// Announce tells the guard that the next boot is meant, and how long it then
// waits for a decision.
func (l *Lane) Announce(ctx context.Context, run string, budget time.Duration) error {
	l.extend(ctx, run)
	err := l.Call(ctx, agent.OpAnnounce, agent.Announcing{Run: run, Budget: budget.Seconds()}, nil)
	if err == nil {
		l.guarded = time.Now().Add(BootLimit + budget)
	}
	return err
}

// Reboots tells whether the lane has a reboot to undo.
func (l *Lane) Reboots() bool {
	return slices.ContainsFunc(l.Recipe.Operations, func(op agent.Operation) bool { return op.Op == agent.DoReboot })
}

// Trial tells whether the new system is, or was, booted once before its commit.
func (l *Lane) Trial() bool {
	return slices.ContainsFunc(l.Recipe.Operations, func(op agent.Operation) bool { return op.Op == agent.DoTrial })
}

// ErrRebooting is the outcome of a reboot that has begun.
var ErrRebooting = errors.New("the host reboots")

// Apply does one operation.
func (l *Lane) Apply(ctx context.Context, op agent.Operation) (out agent.Outcome, err error) {
	ask := l.insist
	if op.Op == agent.DoReboot {
		ask = l.once
	}
	err = ask(ctx, agent.OpApply, op, &out)
	switch {
	case err != nil || out.State != "failed":
	case op.Op == agent.DoReboot && out.Code > 128: // the job was stopped, like all else
		err = ErrRebooting
	default:
		err = Fail(errors.New(out.Message), out.Hint...)
	}
	return out, err
}

// Rebooted waits until the host answers in another boot than the given one.
func (l *Lane) Rebooted(ctx context.Context, boot string, limit time.Duration) (now agent.Facts, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := errSameBoot
	for {
		l.Drop()
		if err = l.Reattach(limited, limit); err == nil {
			err = l.Call(limited, agent.OpFacts, agent.FactsArgs{Brief: true}, &now)
		}
		if err == nil && now.BootID != boot {
			return now, nil
		}
		if fenced(err) || hostKey(err) {
			return now, err
		}
		if err != nil && limited.Err() == nil { // else it was cut short
			last = err
		}
		select {
		case <-limited.Done():
			return now, errors.Join(ctx.Err(), fmt.Errorf("the host did not come back from its reboot within %s: %w", limit, last))
		case <-time.After(time.Second):
		}
	}
}

var errSameBoot = errors.New("it is still up")

// Rebased waits until the guard watches in the boot that was announced.
func (l *Lane) Rebased(ctx context.Context, run, boot string) error {
	for deadline := time.Now().Add(patience); ; {
		var is agent.Lane
		err := l.Call(ctx, agent.OpLane, agent.LaneArgs{Run: run}, &is)
		switch {
		case err != nil:
			return err
		case is.Guard != nil && is.Watching && is.Guard.BootID == boot && is.Guard.Announced == 0:
			l.guarded = time.Now().Add(time.Duration(is.Guard.Left * float64(time.Second)))
			return nil
		case time.Now().After(deadline):
			return Fail(errors.New("the guard does not watch after the boot"), HostModuleHint...)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func hostKey(err error) bool {
	var he *host.Error
	return errors.As(err, &he) && he.Kind == host.HostKey
}

// HostModuleHint is what gives a host a guard that outlives a reboot.
var HostModuleHint = []string{
	"deployer init --module",
	"# and in the host's configuration: imports = [ ./deployer-host.nix ]; services.deployer-host.enable = true;",
}

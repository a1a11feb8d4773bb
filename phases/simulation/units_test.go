package simulation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// manager is the host's systemd, as one process asks it.
type manager struct {
	m *machine
	p *process
}

// unit is a transient one.
type unit struct {
	t       agent.Transient
	by      *process // that asked for it
	p       *process
	stopped bool
	over    chan struct{} // closed when it will not run again
}

// systemUnits are those of a system that runs.
func (m *machine) systemUnits() []agent.Unit {
	target := "active"
	if m.behave.sick && m.readlink("/run/current-system") == newSystem {
		target = "inactive"
	}
	return []agent.Unit{
		{Name: "multi-user.target", Load: "loaded", Active: target, Sub: target},
		{Name: "sshd.service", Load: "loaded", Active: "active", Sub: "running"},
		{Name: "web.service", Load: "loaded", Active: "active", Sub: "running"},
	}
}

func (s manager) Run(ctx context.Context, t agent.Transient) error {
	if !s.p.at("unit " + nameless(t.Name)) {
		return errDead
	}
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	if s.m.units[t.Name] != nil {
		return errors.New("unit " + t.Name + " was already loaded")
	}
	u := &unit{t: t, by: s.p, over: make(chan struct{})}
	s.m.units[t.Name] = u
	go s.m.life(u)
	return nil
}

// life is a unit's: its program, and again where it is to be restarted.
func (m *machine) life(u *unit) {
	defer close(u.over)
	defer func() {
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		if m.units[u.t.Name] == u {
			delete(m.units, u.t.Name)
		}
	}()
	args := u.t.Args[slices.Index(u.t.Args, "-root")+2:]
	for {
		code := 0
		m.w.mu.Lock()
		loaded := m.units[u.t.Name] == u && !u.stopped
		m.w.mu.Unlock()
		if !loaded {
			return
		}
		p := m.spawn(args[0], func(ctx context.Context, p *process) {
			m.w.mu.Lock()
			p.unit = u.t.Name
			if args[0] != "guard" { // the guard is the host's own
				p.by, p.stale = u.by.by, u.by.stale
			}
			m.w.mu.Unlock()
			code = m.verb(ctx, p, u.t.Name, args...)
		})
		m.w.mu.Lock()
		u.p = p
		m.w.mu.Unlock()
		select {
		case <-p.done:
		case <-p.killed:
			code = 137
		}
		if u.stopped || code == 0 || !again(u.t) {
			return
		}
		time.Sleep(restartAfter(u.t))
	}
}

func again(t agent.Transient) bool {
	return slices.Contains(t.Properties, "Restart=on-failure") || slices.Contains(t.Properties, "Restart=always")
}

func restartAfter(t agent.Transient) time.Duration {
	for _, p := range t.Properties {
		if text, ok := strings.CutPrefix(p, "RestartSec="); ok {
			if d, err := time.ParseDuration(text); err == nil {
				return d
			}
			if d, err := time.ParseDuration(text + "s"); err == nil {
				return d
			}
		}
	}
	return 100 * time.Millisecond
}

// stop asks a unit to end, and makes it after a while.
func (m *machine) stop(u *unit) {
	m.w.mu.Lock()
	u.stopped = true
	p := u.p
	m.w.mu.Unlock()
	if p == nil {
		return
	}
	p.cancel(agent.ErrStopped)
	select {
	case <-u.over:
	case <-time.After(20 * time.Second):
		p.kill()
		<-u.over
	}
}

func (s manager) Do(ctx context.Context, verb string, names ...string) error {
	if !s.p.at("systemctl " + verb + " " + nameless(strings.Join(names, " "))) {
		return errDead
	}
	for _, name := range names {
		s.m.w.mu.Lock()
		u := s.m.units[name]
		s.m.w.mu.Unlock()
		if u != nil && verb == "stop" {
			s.m.stop(u)
		}
	}
	return nil
}

func (s manager) List(ctx context.Context) ([]agent.Unit, error) {
	return s.m.systemUnits(), s.p.alive()
}

func (s manager) Show(ctx context.Context, name string, _ ...string) (map[string]string, error) {
	if err := s.p.alive(); err != nil {
		return nil, err
	}
	s.m.w.mu.Lock()
	u := s.m.units[name]
	s.m.w.mu.Unlock()
	if u != nil {
		return map[string]string{"ActiveState": "active", "SubState": "running", "LoadState": "loaded", "Result": "success"}, nil
	}
	for _, u := range s.m.systemUnits() {
		if u.Name == name {
			return map[string]string{"ActiveState": u.Active, "SubState": u.Sub, "LoadState": "loaded", "Result": "success"}, nil
		}
	}
	return map[string]string{"ActiveState": "inactive", "LoadState": "not-found"}, nil
}

func (s manager) Read(_ context.Context, args agent.OutputArgs) (agent.Output, error) {
	return agent.Output{Lines: []string{}, Cursor: cmp.Or(args.Cursor, "c")}, s.p.alive()
}

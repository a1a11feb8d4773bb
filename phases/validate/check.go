package validate

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/backup"
	"github.com/hbohlen/deployer/runbooks"
)

// Check is one question about one host, asked until it was answered well often
// enough, or its time is over.
type Check struct {
	phases.On
	conf *runbooks.Check
}

// NewCheck makes the step that asks c of a host.
func NewCheck(host string, c *runbooks.Check) *Check {
	on := phases.On{Lane: host}
	if c.Start {
		on.Kind = phases.Idempotent
	}
	return &Check{On: on, conf: c}
}

// Name implements phases.Step.
func (c *Check) Name() string { return c.conf.Name }

// Plan implements phases.Planner.
func (c *Check) Plan(_ context.Context, env *phases.Env) (phases.Change, error) {
	return phases.Change{Text: Describe(c.conf.For(env.Lane.Conf))}, nil
}

// Describe says a check in words.
func Describe(c *runbooks.Check) string {
	text := c.Kind + " " + subject(c)
	if c.When != "" {
		text += ", " + c.When
	}
	if c.MaxAge > 0 {
		text += ", younger than " + c.MaxAge.String()
	}
	if c.NewerThan > 0 {
		text += ", a snapshot newer than " + c.NewerThan.String()
	}
	if c.Successes > 1 {
		text += fmt.Sprintf(", %d times in a row", c.Successes)
	}
	return text + ", within " + c.Within.String()
}

func subject(c *runbooks.Check) string {
	switch c.Kind {
	case "command":
		return strings.Join(c.Command, " ")
	case "subvolumes":
		return strings.Join(c.Subvols, ", ")
	case "backup":
		return c.Backup
	}
	return probe(c).Target
}

// probe is the check as one look.
func probe(c *runbooks.Check) agent.Probe {
	p := agent.Probe{
		Kind: c.Kind, Args: c.Command, Headers: c.Headers, Status: c.Status, Body: c.Contains,
		Start: c.Start, Paths: c.Subvols, Newer: c.NewerThan, Timeout: c.Timeout,
	}
	for _, t := range []string{c.Unit, c.TCP, c.HTTP, c.File, c.Mount, c.Disk, c.Snapshot} {
		if t != "" {
			p.Target = t
		}
	}
	return p
}

// Do implements phases.Step.
func (c *Check) Do(ctx context.Context, env *phases.Env) error {
	conf := c.conf.For(env.Lane.Conf)
	if conf.Kind == "backup" { // asking again makes no copy younger
		conf.Successes, conf.Interval = 1, conf.Within
	}
	deadline := time.Now().Add(conf.Within)
	streak, tries := 0, 0
	var last agent.Sample
	for {
		s, err := Look(ctx, env, conf, time.Until(deadline))
		if err != nil {
			return err
		}
		tries++
		if last = s; s.OK {
			streak++
		} else {
			streak = 0
		}
		if streak >= max(conf.Successes, 1) {
			env.Facts(map[string]any{"sample": brief(last), "tries": tries})
			return nil
		}
		if time.Until(deadline) <= conf.Interval {
			env.Facts(map[string]any{"sample": brief(last), "tries": tries})
			return checkFailed(conf, env.Lane.Name, last, tries)
		}
		env.Say(last.Detail)
		if err := sleep(ctx, conf.Interval); err != nil {
			return err
		}
	}
}

// brief leaves out what a probe printed: remote output is not for the journal.
func brief(s agent.Sample) agent.Sample {
	s.Output = ""
	return s
}

func checkFailed(c *runbooks.Check, host string, s agent.Sample, tries int) error {
	f := phases.Fail(fmt.Errorf("%s (%s %s; %d tries in %s)", s.Detail, c.Kind, subject(c), tries, c.Within))
	if c.Kind == "backup" {
		f.Hint = []string{"deployer snapshots send --host " + host}
	}
	if s.Output != "" {
		lines := strings.Split(strings.TrimRight(s.Output, "\n"), "\n")
		f.Output = lines[max(0, len(lines)-20):]
	}
	return f
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Look takes one sample, from the host or from the controller, and applies the
// check's condition.
func Look(ctx context.Context, env *phases.Env, c *runbooks.Check, left time.Duration) (agent.Sample, error) {
	if c.Kind == "backup" {
		return copied(ctx, env, c, left)
	}
	p, l := probe(c), env.Lane
	if left > 0 {
		p.Timeout = min(p.Timeout, max(left, time.Second))
	}
	if fromController(l, c) {
		return condition(c, agent.Look(ctx, p))
	}
	s, err := onHost(ctx, l, p)
	if err == nil && s.OK && c.Kind == "unit" && c.NewerThan > 0 {
		s, err = onHost(ctx, l, agent.Probe{Kind: "snapshot", Target: madeSnapshots, Newer: c.NewerThan, Timeout: p.Timeout})
	}
	if err != nil {
		return s, err
	}
	return condition(c, s)
}

// copied looks at what the backup host has of a host.
func copied(ctx context.Context, env *phases.Env, c *runbooks.Check, left time.Duration) (agent.Sample, error) {
	within, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	s := backup.Sample(within, env.Run, env.Lane.Name)
	if s.OK && c.MaxAge > 0 && s.Values["age_seconds"] > c.MaxAge.Seconds() {
		s.OK, s.Detail = false, fmt.Sprintf("%s, want at most %s", s.Detail, c.MaxAge)
	}
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	return condition(c, s)
}

// madeSnapshots is where a unit that makes snapshots puts them: the place that
// snapper, btrbk's examples and NixOS modules share.
const madeSnapshots = "/.snapshots"

// onHost takes a sample by the host's agent, over the connection for judging.
// A host that cannot be reached now is a bad sample, not the end of the check.
func onHost(ctx context.Context, l *phases.Lane, p agent.Probe) (s agent.Sample, err error) {
	j, err := l.Judge(ctx)
	if err == nil {
		err = j.Call(ctx, agent.OpProbe, p, &s)
	}
	if phases.Passing(err) && ctx.Err() == nil {
		return agent.Sample{Detail: err.Error()}, nil
	}
	return s, err
}

// fromController tells whether a check looks from here: it says so, or it names
// the host's own address, which stands for how others reach it.
func fromController(l *phases.Lane, c *runbooks.Check) bool {
	if c.From != "" {
		return c.From == "controller"
	}
	host := ""
	switch c.Kind {
	case "http":
		if u, err := url.Parse(c.HTTP); err == nil {
			host = u.Hostname()
		}
	case "tcp":
		host, _, _ = net.SplitHostPort(c.TCP)
	}
	address, _, err := net.SplitHostPort(l.Conf.Address)
	if err != nil {
		address = strings.Trim(l.Conf.Address, "[]")
	}
	return host != "" && host == address
}

// condition applies `when` to what was measured.
func condition(c *runbooks.Check, s agent.Sample) (agent.Sample, error) {
	if c.When == "" || !s.OK {
		return s, nil
	}
	switch held, err := Holds(c, s); {
	case err != nil:
		s.OK, s.Detail = false, err.Error()
	case !held:
		s.OK, s.Detail = false, fmt.Sprintf("%s, want %s", s.Detail, c.When)
	}
	return s, nil
}

// Holds evaluates a check's condition over a sample. An error is missing data.
func Holds(c *runbooks.Check, s agent.Sample) (bool, error) {
	values := map[string]any{}
	for name, v := range s.Values {
		values[name] = v
	}
	return c.Holds(values)
}

package agent

import (
	"context"
	"path"
	"slices"
	"strings"
)

// Units is the service manager.
type Units interface {
	// Run starts a transient unit and returns when its program was executed.
	Run(ctx context.Context, t Transient) error
	// Do is `systemctl VERB UNIT…` for start, stop and reset-failed; it returns when the job
	// has ended: the units' own timeouts bound it. The verb queue is a start that nobody waits for,
	// and reach a start of nothing but these units themselves.
	Do(ctx context.Context, verb string, units ...string) error
	// List is every unit that is loaded.
	List(ctx context.Context) ([]Unit, error)
	// Show is some properties of one unit.
	Show(ctx context.Context, unit string, properties ...string) (map[string]string, error)
}

// Transient is a unit that exists only while it runs.
type Transient struct {
	Name       string
	Args       []string
	Env        []string
	Properties []string // KEY=VALUE
}

// Unit is one line of the manager's list.
type Unit struct {
	Name, Load, Active, Sub string
}

const alone = "--job-mode=ignore-dependencies"

// systemd is the real one, by its own commands: they are on every host, and
// their output options (--plain, --no-legend, -o json) are stable interfaces.
type systemd struct{ path string }

func (s systemd) Run(ctx context.Context, t Transient) error {
	args := []string{"systemd-run", "--quiet", "--no-ask-password", "--collect", "--service-type=exec", "--unit=" + t.Name}
	for _, p := range t.Properties {
		args = append(args, "--property="+p)
	}
	for _, e := range t.Env {
		args = append(args, "--setenv="+e)
	}
	_, err := output(ctx, s.path, append(append(args, "--"), t.Args...)...)
	return err
}

func (s systemd) Do(ctx context.Context, verb string, units ...string) error {
	args := []string{"systemctl", "--no-ask-password", "--quiet"}
	switch verb {
	case "queue":
		args, verb = append(args, "--no-block"), "start"
	case "reach":
		args, verb = append(args, alone), "start"
	}
	_, err := output(ctx, s.path, append(append(args, verb, "--"), units...)...)
	return err
}

func (s systemd) List(ctx context.Context) ([]Unit, error) {
	out, err := ask(ctx, s.path, "systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", "--no-pager")
	return parseUnits(out), err
}

func parseUnits(out string) []Unit {
	var units []Unit
	for line := range strings.Lines(out) {
		// A dot marks failed units in some versions, in spite of --plain.
		f := strings.Fields(strings.TrimLeft(line, " ●*×"))
		if len(f) >= 4 {
			units = append(units, Unit{f[0], f[1], f[2], f[3]})
		}
	}
	return units
}

func (s systemd) Show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	out, err := ask(ctx, s.path, "systemctl", "show", "--no-pager", "--property="+strings.Join(properties, ","), "--", unit)
	values := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	return values, err
}

// own tells whether a unit is deployer's: those never count as the host's.
func own(unit string) bool { return strings.HasPrefix(unit, "deployer-") }

// failing is what is failed, or waits to be started again because it failed:
// both count as failed for switch-to-configuration.
func failing(ctx context.Context, u Units) ([]string, error) {
	units, err := u.List(ctx)
	return failingOf(ctx, u, units), err
}

func failingOf(ctx context.Context, u Units, units []Unit) []string {
	return names(units, func(unit Unit) bool {
		if unit.Sub == "auto-restart" {
			p, _ := u.Show(ctx, unit.Name, "Result")
			return p["Result"] != "success"
		}
		return unit.Active == "failed"
	})
}

var listed = []string{".service", ".socket", ".timer", ".path", ".mount", ".swap"}

func active(units []Unit) []string {
	return names(units, func(u Unit) bool {
		return u.Active == "active" && slices.Contains(listed, path.Ext(u.Name))
	})
}

func names(units []Unit, want func(Unit) bool) []string {
	list := []string{}
	for _, u := range units {
		if !own(u.Name) && want(u) {
			list = append(list, u.Name)
		}
	}
	slices.Sort(list)
	return list
}

// running tells whether a unit still has something to run.
func running(ctx context.Context, u Units, unit string) (bool, error) {
	p, err := u.Show(ctx, unit, "ActiveState")
	return runs(p), err
}

func runs(p map[string]string) bool {
	return slices.Contains([]string{"active", "activating", "deactivating", "reloading", "refreshing"}, p["ActiveState"])
}

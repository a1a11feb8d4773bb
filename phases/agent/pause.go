package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pausing is whom a set keeps still, and until when. It lies on the disk before
// anybody is touched; a unit of its own reads it and lets them go on at the
// deadline, or as soon as the process that took the set is gone.
type pausing struct {
	How   string   `json:"how"` // paused, stopped
	Units []string `json:"units"`
	Until float64  `json:"until"` // CLOCK_BOOTTIME
	Boot  string   `json:"boot"`
}

const (
	pauseFile = "pause.json"
	pauseLock = "pause.alive" // held by who pauses
	pauseEye  = "pause.watch" // held by who watches that
	pauseFor  = 5.0           // seconds
	stopFor   = 120.0         // the same, of units that are stopped
	freezeLag = 30 * time.Second
)

// still pauses or stops units and answers how to let them go on. They are
// watched before the first of them is touched.
func (a *agent) still(ctx context.Context, s *store, args SnapshotArgs) (release func() (float64, error), err error) {
	how := cmp.Or(args.Consistency, Single)
	if how == Single {
		return func() (float64, error) { return 0, nil }, nil
	}
	p := pausing{How: how, Boot: a.bootID()}
	if p.Units, err = a.pausable(ctx, args); err != nil {
		return nil, err
	}
	if err := a.watched(ctx, s, args.Run, &p); err != nil {
		return nil, err
	}
	a.at("watched")
	began := a.uptime()
	ended := false
	release = func() (float64, error) {
		if ended {
			return 0, nil
		}
		ended = true
		err := a.kept(ctx, p, args.Units)
		took := a.uptime() - began
		err = errors.Join(err, a.goOn(context.WithoutCancel(ctx), p), s.remove(runFile(args.Run, pauseFile)))
		return took, err
	}
	if err := a.halt(ctx, p); err != nil {
		_, _ = release()
		return nil, err
	}
	a.at("paused")
	return release, nil
}

// pausable is the units of a set that run, be it that they only start or reload,
// and what has to stop with them: only those are started again.
func (a *agent) pausable(ctx context.Context, args SnapshotArgs) (list []string, err error) {
	if args.Consistency != Paused && args.Consistency != Stopped {
		return nil, invalid("%q is no consistency: single, paused or stopped", args.Consistency)
	}
	if len(args.Units) == 0 {
		return nil, invalid("a set that is %s has to name the units", args.Consistency)
	}
	for _, u := range args.Units {
		if essential(u) {
			return nil, invalid("%s cannot be %s: the host, or the way to it, does not go on without", u, args.Consistency)
		}
	}
	if args.Consistency == Stopped {
		return a.dependents(ctx, nil, args.Units)
	}
	return a.working(ctx, args.Units)
}

// working is the units that have processes to freeze: one that crashed and waits
// for its next start has none, and is not to keep its own repair from the host.
func (a *agent) working(ctx context.Context, units []string) ([]string, error) {
	on, err := a.running(ctx, units)
	return slices.DeleteFunc(on, func(u string) bool {
		p, err := a.Units.Show(ctx, u, "ControlGroup")
		return err == nil && strings.Trim(p["ControlGroup"], "/") == ""
	}), err
}

func (a *agent) running(ctx context.Context, units []string) (list []string, err error) {
	for _, u := range units {
		on, err := running(ctx, a.Units, u)
		if err != nil {
			return nil, err
		}
		if on {
			list = append(list, u)
		}
	}
	return list, nil
}

// watched writes down what is to be let go on and starts who does that.
func (a *agent) watched(ctx context.Context, s *store, run string, p *pausing) error {
	p.Until = a.uptime() + map[string]float64{Paused: pauseFor, Stopped: stopFor}[p.How]
	if err := s.writeJSON(runFile(run, pauseFile), p); err != nil {
		return err
	}
	unit := "deployer-pause-" + run + "-" + token() + ".service"
	err := a.Units.Run(ctx, Transient{Name: unit, Args: append(slices.Clone(a.Self), "-root", a.Root, "go-on", run), Properties: []string{
		"Description=deployer: ends the pause of run " + run, "DefaultDependencies=no", "IgnoreOnIsolate=yes",
		"Restart=on-failure", "RestartSec=100ms", "StartLimitIntervalSec=0", "OOMScoreAdjust=-900",
	}})
	for deadline := time.Now().Add(jobStarts); err == nil && !s.held(runFile(run, pauseEye)); {
		if err = pause(ctx, jobPoll/5); time.Now().After(deadline) {
			err = errors.New("it was started, but is not seen")
		}
	}
	if err != nil {
		return fmt.Errorf("nobody would end the pause: %w", err)
	}
	return nil
}

// runGoOn is the verb go-on: it waits until the pause is over by itself, by the
// end of its process or by its deadline, and sees to it that all go on.
func (a *agent) runGoOn(ctx context.Context, run string) (int, error) {
	s, err := a.runStore(run)
	if err != nil {
		return 1, err
	}
	eye, err := s.lock(runFile(run, pauseEye), true)
	if err != nil {
		return 1, err
	}
	defer eye.Close()
	for {
		p := load[pausing](s, runFile(run, pauseFile))
		if p == nil {
			return 0, nil
		}
		if !s.held(runFile(run, pauseLock)) || a.uptime() >= p.Until || p.Boot != a.bootID() {
			if err := a.goOn(ctx, *p); err != nil {
				return 1, err // systemd starts it again
			}
			return 0, nil
		}
		if err := pause(ctx, jobPoll); err != nil {
			return 1, err
		}
	}
}

func (a *agent) halt(ctx context.Context, p pausing) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration((p.Until-a.uptime())*float64(time.Second)))
	defer cancel()
	if p.How == Stopped && len(p.Units) > 0 {
		return a.Units.Do(ctx, "stop", p.Units...)
	}
	for _, u := range p.Units {
		if err := a.freeze(ctx, u, "1"); err != nil {
			return &Error{Code: "failed", Message: fmt.Sprintf("cannot pause %s: %v", u, err), Hint: []string{"systemctl status " + quote(u)}}
		}
	}
	return nil
}

// goOn is for all, whatever state they are in, and can be done twice.
func (a *agent) goOn(ctx context.Context, p pausing) error {
	if p.How == Stopped {
		return a.start(ctx, p.Units)
	}
	ctx, cancel := context.WithTimeout(ctx, freezeLag)
	defer cancel()
	var errs []error
	for _, u := range p.Units {
		if err := a.freeze(ctx, u, "0"); err != nil && !errors.Is(err, os.ErrNotExist) { // it has ended
			errs = append(errs, fmt.Errorf("cannot let %s go on: %w", u, err))
		}
	}
	return errors.Join(errs...)
}

// kept tells whether nobody went on, or began, before the last snapshot was taken.
func (a *agent) kept(ctx context.Context, p pausing, units []string) error {
	if a.uptime() >= p.Until {
		return &Error{Code: "timeout", Message: "the units went on before the set was taken: the time for it was over", Hint: []string{"pause fewer units"}}
	}
	look := a.running
	if p.How == Paused { // those that were frozen still are
		look, units = a.working, slices.DeleteFunc(slices.Clone(units), func(u string) bool { return slices.Contains(p.Units, u) })
	}
	on, err := look(ctx, units)
	if err == nil && len(on) > 0 {
		err = &Error{Code: "busy", Message: fmt.Sprintf("the set is not %s: meanwhile something started %s", p.How, strings.Join(on, ", ")),
			Hint: []string{"systemctl status " + quote(on[0]), "# keep still what starts it, then again"}}
	}
	return err
}

// freeze sets the state of a unit's control group and waits until all its
// processes have it. Never fsfreeze: the snapshot itself would wait for that.
func (a *agent) freeze(ctx context.Context, unit, state string) error {
	p, err := a.Units.Show(ctx, unit, "ControlGroup")
	if err != nil {
		return err
	}
	if strings.Trim(p["ControlGroup"], "/") == "" {
		return fmt.Errorf("it has no control group: %w", os.ErrNotExist)
	}
	dir := filepath.Join(cgroups(), p["ControlGroup"])
	if err := os.WriteFile(dir+"/cgroup.freeze", []byte(state), 0); errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return halted(ctx, filepath.Join("/sys/fs/cgroup/systemd", p["ControlGroup"]), state == "1")
	} else if err != nil {
		return err
	}
	for {
		events, err := os.ReadFile(dir + "/cgroup.events")
		if err != nil || strings.Contains(string(events), "frozen "+state) {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// halted stops processes, or lets them go on, by signals: for hosts without the
// second version of control groups. None can have been missed when a look finds
// all of them stopped before it sends anything.
func halted(ctx context.Context, dir string, stop bool) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	for {
		moving := false
		err := filepath.WalkDir(dir, func(at string, e os.DirEntry, err error) error {
			procs, _ := os.ReadFile(at + "/cgroup.procs")
			for _, pid := range strings.Fields(string(procs)) {
				stat, _ := os.ReadFile("/proc/" + pid + "/stat")
				if n, _ := strconv.Atoi(pid); bytes.Contains(stat, []byte(") T ")) != stop && n > 0 {
					moving = true
					_ = unix.Kill(n, map[bool]unix.Signal{true: unix.SIGSTOP, false: unix.SIGCONT}[stop])
				}
			}
			return err
		})
		if err != nil || !moving {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// cgroups is where the hierarchy is that has the freezer.
func cgroups() string {
	for _, m := range readMounts("/proc/self/mountinfo") {
		if m.FS == "cgroup2" {
			return m.Path
		}
	}
	return "/sys/fs/cgroup"
}

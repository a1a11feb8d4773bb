package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

const (
	guardTries = 3               // restores that a watcher begins in one round
	guardLook  = time.Second     // how soon a watcher sees that it is no longer needed
	guardAgain = 5 * time.Second // after a restore that failed
)

// move is what a watcher does next.
type move int

const (
	over   move = iota // the round is closed or confirmed
	wait               // until the given time
	rebase             // the boot was meant: the rest of the budget counts from it
	fire               // decide to go back, and go
	goOn               // the decision is made: go back
	giveUp             // leave the host up, for a person
)

// next is the whole of the watcher's judgement: what to do now, and for wait
// until when, in seconds of CLOCK_BOOTTIME.
func next(g Guard, d *Decision, c *Closing, bootID string, now float64) (move, float64) {
	booted := g.BootID != bootID
	switch {
	case c != nil, d != nil && d.Decision == Confirmed:
		return over, 0
	case d != nil && d.By != ByGuard && !booted && now < g.Claim:
		return wait, g.Claim
	case d != nil && g.Tries >= guardTries:
		return giveUp, 0
	case d != nil:
		return goOn, 0
	case booted && g.Announced > 0:
		return rebase, 0
	case !booted && now < g.Deadline:
		return wait, g.Deadline
	}
	return fire, 0
}

// arm writes what the guard is to do, starts its watcher, and answers when that
// watches and the file is read back.
func (a *agent) arm(ctx context.Context, args Arming) (Guard, error) {
	s, err := a.runStore(args.Run)
	if err != nil {
		return Guard{}, err
	}
	if args.Budget <= 0 || args.Cap < args.Budget {
		return Guard{}, invalid("a guard needs a budget, and a cap that is not below it")
	}
	if _, err := a.recipeGet(ctx, RunRef{args.Run}); err != nil {
		return Guard{}, err
	}
	now := a.uptime()
	g := Guard{Arming: args, Round: roundOf(s, args.Run), BootID: a.bootID(), Armed: now, Deadline: now + args.Budget}
	if d := decisionOf(s, args.Run, g.Round); d != nil {
		return g, &Error{Code: d.Decision, Message: fmt.Sprintf("run %s is %s on this host already", args.Run, d.Decision)}
	}
	if err := s.writeJSON(runFile(args.Run, "guard.json"), g); err != nil {
		return g, err
	}
	if err := a.watch(ctx, s, g); err != nil {
		return g, err
	}
	is := guardOf(s, args.Run)
	if is == nil || *is != g {
		return g, errors.New("the guard was armed, but is not what was written")
	}
	is.Left = is.Deadline - a.uptime()
	return *is, nil
}

var digestName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// watch starts the watcher of a round and waits until it watches.
func (a *agent) watch(ctx context.Context, s *store, g Guard) error {
	alive := runFile(g.Run, "guard.alive")
	if s.held(alive) {
		return nil
	}
	if self := filepath.Base(a.Self[0]); digestName.MatchString(self) { // for the launcher, after a boot
		if err := s.write("current", []byte(self+"\n")); err != nil {
			return err
		}
	}
	unit := fmt.Sprintf("deployer-guard-%s-%d-%s.service", g.Run, g.Round, token())
	args := append(append([]string{}, a.Self...), "-root", a.Root, "guard", g.Run)
	err := a.Units.Run(ctx, Transient{Name: unit, Args: args, Properties: []string{
		"Description=deployer guard of run " + g.Run, "DefaultDependencies=no", "IgnoreOnIsolate=yes",
		"Restart=on-failure", "RestartSec=500ms", "StartLimitIntervalSec=0", "OOMScoreAdjust=-900",
		"StandardOutput=journal", "StandardError=journal",
	}})
	for deadline := time.Now().Add(jobStarts); time.Now().Before(deadline) && err == nil; {
		if s.held(alive) {
			return nil
		}
		err = pause(ctx, jobPoll)
	}
	return fmt.Errorf("the guard does not watch: %w", firstOf(err, errors.New(unit+" was started, but is not seen")))
}

// extend gives the whole budget again, within the cap.
func (a *agent) extend(_ context.Context, ref RunRef) (Guard, error) {
	return a.change(ref.Run, func(g *Guard, now float64) {
		g.Deadline = max(g.Deadline, min(now+g.Budget, g.Armed+g.Cap))
	})
}

// announce says that the next boot is meant. Its budget counts from the boot.
func (a *agent) announce(_ context.Context, args Announcing) (Guard, error) {
	return a.change(args.Run, func(g *Guard, _ float64) { g.Announced = args.Budget })
}

func (a *agent) change(run string, how func(g *Guard, now float64)) (Guard, error) {
	s, err := a.runStore(run)
	if err != nil {
		return Guard{}, err
	}
	g := guardOf(s, run)
	if g == nil {
		return Guard{}, &Error{Code: "not-found", Message: "run " + run + " has no guard on this host"}
	}
	now := a.uptime()
	how(g, now)
	err = s.writeJSON(runFile(run, "guard.json"), g)
	g.Left = g.Deadline - now
	return *g, err
}

// runGuard is the verb guard: the watcher. It needs nobody: no network, no
// controller, no plugin.
func (a *agent) runGuard(ctx context.Context, run string) (int, error) {
	s, err := a.runStore(run)
	if err != nil {
		return 1, err
	}
	alive, err := s.lock(runFile(run, "guard.alive"), false)
	if errors.Is(err, unix.EWOULDBLOCK) { // one watches already
		return 0, nil
	}
	if err != nil {
		return 1, err
	}
	defer alive.Close()
	for {
		done, pauseFor, err := a.step(ctx, s, run)
		if err != nil {
			fmt.Fprintf(os.Stderr, "guard of run %s: %v\n", run, err)
		}
		if done {
			return 0, nil
		}
		if err := pause(ctx, max(pauseFor, jobPoll)); err != nil {
			return 0, nil
		}
	}
}

// step makes one move. A file that is not root's own, or cannot be read, is
// acted on by nobody.
func (a *agent) step(ctx context.Context, s *store, run string) (done bool, again time.Duration, err error) {
	var g Guard
	if err := s.readJSON(runFile(run, "guard.json"), &g); err != nil {
		return errors.Is(err, fs.ErrNotExist), guardLook, err
	}
	now := a.uptime()
	switch m, until := next(g, decisionOf(s, run, g.Round), closingOf(s, run), a.bootID(), now); m {
	case wait:
		return false, min(guardLook, time.Duration((until-now)*float64(time.Second))), nil
	case over:
		return true, 0, nil
	case giveUp:
		return true, 0, a.surrender(s, g)
	case rebase:
		return false, 0, a.decided(s, run, func(g *Guard) {
			now := a.uptime()
			g.BootID, g.Armed, g.Deadline, g.Announced = a.bootID(), now, now+g.Announced, 0
		})
	case fire:
		// Looked at again behind the gate: it may have been confirmed or extended meanwhile.
		return false, 0, a.decided(s, run, func(g *Guard) {
			if m, _ := next(*g, decisionOf(s, run, g.Round), closingOf(s, run), a.bootID(), a.uptime()); m == fire {
				_, _ = a.decide(s, run, g.Round, Restoring, ByGuard)
			}
		})
	}
	if err := a.goBack(ctx, s, g); err != nil {
		return false, guardAgain, err
	}
	return false, guardLook, nil
}

// decided changes the guard's file with the gate to itself.
func (a *agent) decided(s *store, run string, how func(*Guard)) error {
	gate, err := s.gate(true)
	if err != nil {
		return err
	}
	defer gate.Close()
	g := guardOf(s, run)
	if g == nil {
		return fs.ErrNotExist
	}
	how(g)
	return s.writeJSON(runFile(run, "guard.json"), g)
}

// goBack is one try of the watcher to restore the host.
func (a *agent) goBack(ctx context.Context, s *store, g Guard) error {
	recipe, err := a.recipeGet(ctx, RunRef{g.Run})
	if err != nil {
		return err
	}
	var job Job
	var enlisted error
	done := false
	err = a.decided(s, g.Run, func(g *Guard) {
		if last := lastRestore(s, g.Run); last > 0 {
			r, err := a.receipt(ctx, s, restoreUnit(g.Run, last))
			if err == nil && r.State == stateBegun {
				return // a controller's still runs
			}
			if done = err == nil && r.State == stateEnded && r.Code == 0 && r.Round == g.Round && a.back(recipe) == nil; done {
				return // a controller's is over, and only that was not said
			}
		}
		g.Tries++
		job, enlisted = a.enlistRestore(s, g.Run)
	})
	if done && err == nil {
		return a.closeBack(ctx, g)
	}
	if err := firstOf(err, enlisted); err != nil || job.Unit == "" {
		return err
	}
	fmt.Fprintf(os.Stdout, "guard of run %s: no decision in time: going back\n", g.Run)
	code, err := a.restoreAs(ctx, s, job, recipe, ByGuard)
	if err != nil {
		return err
	}
	if err := a.back(recipe); err != nil || code != 0 {
		return fmt.Errorf("try %d of %d: the host is not back: %w", g.Tries+1, guardTries, firstOf(err, errors.New("an operation failed")))
	}
	return a.closeBack(ctx, g)
}

func (a *agent) closeBack(ctx context.Context, g Guard) error {
	_, err := a.close(ctx, Closing{Run: g.Run, Outcome: "restored", By: ByGuard, Rejected: g.To, Reason: "no decision within the guard's time"})
	return err
}

// back compares the host with what the recipe says that it was.
func (a *agent) back(r Recipe) error {
	boot, _ := a.boot()
	for _, c := range [][3]string{
		{"the running system", a.resolve("/run/current-system"), r.Before.System},
		{"the profile", a.resolve(SystemProfile), r.Before.Profile.System},
		{"the boot default", boot.System, r.Before.Boot.System},
	} {
		if c[2] != "" && c[1] != c[2] {
			return fmt.Errorf("%s is %s, was %s", c[0], c[1], c[2])
		}
	}
	return nil
}

// surrender leaves the host up, and says on the console what remains.
func (a *agent) surrender(s *store, g Guard) error {
	text := fmt.Sprintf("deployer: run %s could not be undone in %d tries. Follow %s/%s", g.Run, g.Tries, a.Root, runFile(g.Run, "RESTORE.txt"))
	fmt.Fprintln(os.Stderr, text)
	if console, err := os.OpenFile(a.host("/dev/console"), os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err == nil {
		fmt.Fprintf(console, "\r\n%s\r\n", text)
		console.Close()
	}
	_, err := a.close(context.Background(), Closing{Run: g.Run, Outcome: "stuck", By: ByGuard})
	return err
}

// runResume is the verb resume, of the unit that every boot starts: the guard
// of the lane that is open, if there is one.
func (a *agent) runResume(ctx context.Context) (int, error) {
	s, err := a.store(false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 1, err
	}
	if run := openRun(s, ""); run != "" && s.exists(runFile(run, "guard.json")) {
		return a.runGuard(ctx, run)
	}
	return 0, nil
}

// uptime is CLOCK_BOOTTIME in seconds.
func (a *agent) uptime() float64 { return a.Clock.Boottime().Seconds() }

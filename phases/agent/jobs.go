package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"time"
)

const (
	jobPoll    = 5 * time.Millisecond // a look is one small file in the cache
	jobStarts  = 20 * time.Second     // from systemd-run to the recorded start
	stopGrace  = 5 * time.Second      // a job that is ended: between the polite signal and the other
	stopLimit  = 20 * time.Second     // what systemd allows for both, and for the receipt
	stateBegun = "started"
	stateEnded = "ended"
	stateLost  = "lost"
)

var unitName = regexp.MustCompile(`^deployer-[A-Za-z0-9:_.@-]{1,200}\.service$`)

func checkUnit(unit string) error {
	if !unitName.MatchString(unit) {
		return invalid("%q is not a job's name: deployer-….service", unit)
	}
	return nil
}

func jobFile(unit, file string) string { return path.Join("jobs", unit, file) }

// jobStart is idempotent: the same unit name never runs twice, however often
// and from wherever it is asked for.
func (a *agent) jobStart(ctx context.Context, job Job) (Receipt, error) {
	if err := checkUnit(job.Unit); err != nil {
		return Receipt{}, err
	}
	if (len(job.Args) == 0) == (job.Operation == nil) {
		return Receipt{}, invalid("a job is either a command or an operation")
	}
	return a.launch(ctx, job, "job", job.Unit)
}

func (a *agent) launch(ctx context.Context, job Job, verb ...string) (Receipt, error) {
	s, err := a.store(true)
	if err != nil {
		return Receipt{}, err
	}
	job.Epoch = heldBy(s).Epoch
	if err := enlist(s, job); err != nil {
		return Receipt{}, err
	}
	turn, err := s.lock(jobFile(job.Unit, "starting"), true) // several that start it at once: the others find the receipt
	if err != nil {
		return Receipt{}, err
	}
	defer turn.Close()
	if s.exists(jobFile(job.Unit, "receipt.json")) {
		return a.receipt(ctx, s, job.Unit)
	}
	runErr := a.Units.Run(ctx, transient(job, slices.Concat(a.Self, []string{"-root", a.Root}, verb)))
	r, err := a.begun(ctx, s, job.Unit, runErr != nil)
	if err != nil && runErr != nil {
		return r, fmt.Errorf("cannot start %s: %w", job.Unit, runErr)
	}
	return r, err
}

// enlist writes the ticket, or checks that the one that is there is the same.
func enlist(s *store, job Job) error {
	is, err := json.Marshal(job)
	if err != nil {
		return err
	}
	err = s.create(jobFile(job.Unit, "job.json"), is)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	var was Job
	if err := s.readJSON(jobFile(job.Unit, "job.json"), &was); err != nil {
		return err
	}
	epoch := was.Epoch
	was.Epoch = job.Epoch
	if same, err := json.Marshal(was); err != nil || !bytes.Equal(same, is) {
		return &Error{Code: "exists", Message: job.Unit + " was asked for before, with another command"}
	}
	if epoch != job.Epoch { // by an earlier controller: if it has not begun, it may now
		return s.write(jobFile(job.Unit, "job.json"), is)
	}
	return nil
}

// transient describes a job's unit.
//
// No --pipe and no terminal: output goes to the journal, so that nothing but
// the host itself can hold the job up or break it. DefaultDependencies=no and
// IgnoreOnIsolate=yes: it goes on when a switch isolates a target or a failed
// mount starts emergency.target, which stop everything that requires
// sysinit.target. Conflicts= and Before= shutdown.target are then said here, so
// that a reboot ends it in order and it can still write its receipt.
// --collect (always): a failed job is not one of the host's failed units.
func transient(job Job, args []string) Transient {
	t := Transient{Name: job.Unit, Args: args, Env: []string{"DEPLOYER_UNIT=" + job.Unit}, Properties: []string{
		"Description=deployer job of run " + job.Run,
		"KillMode=control-group", "DefaultDependencies=no", "IgnoreOnIsolate=yes",
		"Conflicts=shutdown.target", "Before=shutdown.target",
		fmt.Sprintf("TimeoutStopSec=%d", int(stopLimit.Seconds())),
		"LogRateLimitIntervalSec=0", "StandardOutput=journal", "StandardError=journal",
	}}
	if job.Timeout > 0 { // the wrapper ends it in time; this is for a wrapper that cannot
		t.Properties = append(t.Properties, fmt.Sprintf("RuntimeMaxSec=%d", int((job.Timeout+2*stopLimit).Seconds())))
	}
	return t
}

// begun waits for the receipt that a started job writes before anything else.
func (a *agent) begun(ctx context.Context, s *store, unit string, failed bool) (Receipt, error) {
	for deadline := time.Now().Add(jobStarts); time.Now().Before(deadline); {
		r, err := a.receipt(ctx, s, unit)
		if !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
		if failed {
			if on, err := running(ctx, a.Units, unit); err == nil && !on {
				return a.receipt(ctx, s, unit)
			}
		}
		if err := pause(ctx, jobPoll/2); err != nil {
			return Receipt{}, err
		}
	}
	return Receipt{}, fmt.Errorf("%s did not record its start within %s", unit, jobStarts)
}

// ticket is a job as it lies on the host.
func (a *agent) ticket(unit string) (*store, Job, error) {
	var t Job
	if err := checkUnit(unit); err != nil {
		return nil, t, err
	}
	s, err := a.store(false)
	if err == nil {
		err = s.readJSON(jobFile(unit, "job.json"), &t)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &Error{Code: "not-found", Message: "no job " + unit + " was ever asked for on this host"}
	}
	return s, t, err
}

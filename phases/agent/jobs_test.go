package agent

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func job(unit string, args ...string) Job {
	return Job{Unit: "deployer-" + unit + ".service", Run: "r1", Args: args, Timeout: 30 * time.Second}
}

func TestJobIsRecordedAndReadLater(t *testing.T) {
	h := newHost(t)
	j := job("a", "sh", "-c", "echo $NIXOS_INSTALL_BOOTLOADER-$X; exit 7")
	j.Env = []string{"X=y"}
	r, err := h.jobStart(t.Context(), j)
	must(t, err)
	if r.State == stateLost || r.BootID != "boot-1" || r.Started.IsZero() {
		t.Errorf("%+v", r)
	}
	r = h.wait(j.Unit, 10*time.Second)
	if r.State != stateEnded || r.Code != 7 || r.Ended.IsZero() {
		t.Errorf("%+v", r)
	}
	later := newAgent(h.Options) // another connection
	out, err := later.jobOutput(t.Context(), OutputArgs{Unit: j.Unit})
	must(t, err)
	if strings.Join(out.Lines, "") != "0-y" {
		t.Errorf("%q", out.Lines)
	}
}

func TestJobRunsOnceHoweverOftenItIsStarted(t *testing.T) {
	h := newHost(t)
	j := job("once", "sh", "-c", "echo x >> "+h.path("count"))
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := newAgent(h.Options).jobStart(t.Context(), j); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	h.wait(j.Unit, 10*time.Second)
	_, err := h.jobStart(t.Context(), j)
	must(t, err)
	if n := h.read("count"); n != "x\n" {
		t.Errorf("ran %d times", len(n)/2)
	}
	j.Args = []string{"true"}
	_, err = h.jobStart(t.Context(), j)
	isCode(t, err, "exists")
}

func TestJobOutlivesItsConnection(t *testing.T) {
	h := newHost(t)
	c, ended := h.connect()
	j := job("long", "sh", "-c", "sleep 0.5; exit 3")
	must(t, c.Call(t.Context(), OpJobStart, j, nil))
	c.Close()
	<-ended
	if r := h.wait(j.Unit, 10*time.Second); r.State != stateEnded || r.Code != 3 {
		t.Errorf("%+v", r)
	}
}

func TestJobTimeoutEndsIt(t *testing.T) {
	h := newHost(t)
	j := job("ends", "sleep", "60")
	j.Timeout = 100 * time.Millisecond
	_, err := h.jobStart(t.Context(), j)
	must(t, err)
	if r := h.wait(j.Unit, 10*time.Second); r.State != stateEnded || !r.Timeout || r.Signal != "TERM" || r.Code != 143 {
		t.Errorf("%+v", r)
	}
}

func TestStoppedJobIsRecorded(t *testing.T) {
	h := direct(newHost(t))
	j := job("stopped", "sleep", "60")
	_, err := h.jobStart(t.Context(), j)
	must(t, err)
	h.want(Operation{Op: DoStopJob, Unit: j.Unit}, opDone)
	if r := h.wait(j.Unit, 0); r.State != stateEnded || r.Signal != "TERM" || r.Timeout {
		t.Errorf("%+v", r)
	}
	h.want(Operation{Op: DoStopJob, Unit: j.Unit}, opAlready)
}

func TestReceiptSaysLostWhenNothingRuns(t *testing.T) {
	h := newHost(t)
	for _, unit := range []string{"killed", "booted"} {
		_, err := h.jobStart(t.Context(), job(unit, "sleep", "60"))
		must(t, err)
	}
	killed, booted := "deployer-killed.service", "deployer-booted.service"
	pid := h.Units.(fakeUnits).pid(killed)
	syscall.Kill(-pid, syscall.SIGKILL)
	if r := h.wait(killed, 10*time.Second); r.State != stateLost {
		t.Errorf("after kill -9: %+v", r)
	}
	h.file("proc/sys/kernel/random/boot_id", "boot-2")
	if r := h.wait(booted, 10*time.Second); r.State != stateLost {
		t.Errorf("after a reboot: %+v", r)
	}
	syscall.Kill(-h.Units.(fakeUnits).pid(booted), syscall.SIGKILL)
}

func TestJobThatNeverStartedIsNotFound(t *testing.T) {
	h := newHost(t)
	_, err := h.jobWait(t.Context(), JobRef{Unit: "deployer-none.service"})
	isCode(t, err, "not-found")
	h.file("deployer-x.service.pid", "0") // the manager refuses the name
	_, err = h.jobStart(t.Context(), job("x", "true"))
	if err == nil {
		t.Error("a refused unit started")
	}
	_, err = h.jobWait(t.Context(), JobRef{Unit: "deployer-x.service"})
	isCode(t, err, "not-found")
}

func TestJobNamesAreChecked(t *testing.T) {
	h := newHost(t)
	for _, unit := range []string{"", "sshd.service", "deployer-../x.service", "deployer-a/b.service", "deployer-x.timer", "deployer-\n.service"} {
		_, err := h.jobStart(t.Context(), Job{Unit: unit, Args: []string{"true"}})
		isCode(t, err, "invalid")
	}
	_, err := h.jobStart(t.Context(), Job{Unit: "deployer-x.service"})
	isCode(t, err, "invalid")
}

func TestOperationAsAJob(t *testing.T) {
	h := newHost(t)
	j := Job{Unit: "deployer-op.service", Run: "r1", Operation: &Operation{Op: DoActivate, System: newTop, Action: "test"}, Timeout: time.Minute}
	_, err := h.jobStart(t.Context(), j)
	must(t, err)
	r := h.wait(j.Unit, 10*time.Second)
	if r.Code != 0 || len(r.Result) != 1 || r.Result[0].State != opDone || h.resolve("/run/current-system") != newTop {
		t.Errorf("%+v", r)
	}
}

func TestUnitOfAJobSurvivesWhatASwitchDoes(t *testing.T) {
	text := strings.Join(transient(job("a", "true"), nil).Properties, "\n")
	for _, want := range []string{"KillMode=control-group", "DefaultDependencies=no", "IgnoreOnIsolate=yes", "Conflicts=shutdown.target", "StandardOutput=journal"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestJournalLinesAreClean(t *testing.T) {
	data, err := os.ReadFile("testdata/journal.json")
	must(t, err)
	out := parseJournal(string(data), "before")
	want := []string{"plain", "red", "h\ufffdllo", "", "title", "tab\there"}
	if strings.Join(out.Lines, "|") != strings.Join(want, "|") || out.Cursor != "c6" {
		t.Errorf("%q %s", out.Lines, out.Cursor)
	}
	if out := parseJournal("", "before"); out.Cursor != "before" {
		t.Error("the cursor was lost")
	}
}

package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// process is an agent in a process of its own.
func (h *host) process() (*Client, *exec.Cmd) {
	h.t.Helper()
	c := exec.Command(os.Args[0], "as-agent", "serve")
	c.Env = append(os.Environ(), "TEST_PREFIX="+h.dir)
	in, err := c.StdinPipe()
	must(h.t, err)
	out, err := c.StdoutPipe()
	must(h.t, err)
	must(h.t, c.Start())
	h.t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	return NewClient(duplex{out, in}), c
}

func holder(run string) LockArgs { return LockArgs{Run: run, Owner: "me@here", Reason: "release"} }

func TestLockIsExclusiveBetweenProcesses(t *testing.T) {
	h := newHost(t)
	a, cmd := h.process()
	b, _ := h.process()
	must(t, a.Call(t.Context(), OpLock, holder("r1"), nil))
	isCode(t, a.Call(t.Context(), OpLock, holder("r1"), nil), "fenced") // the run has a controller
	err := b.Call(t.Context(), OpLock, holder("r2"), nil)
	isCode(t, err, "locked")
	for _, want := range []string{"me@here", "r1", "release"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	f, err := ask1[Facts](t.Context(), b, OpFacts, FactsArgs{})
	if err != nil || f.Holder == nil || f.Holder.Run != "r1" {
		t.Errorf("%+v %v", f.Holder, err)
	}
	cmd.Process.Kill() // the kernel gives it back
	for range 200 {
		if err = b.Call(t.Context(), OpLock, holder("r2"), nil); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(err)
}

func TestLockHasOneWinner(t *testing.T) {
	h := newHost(t)
	var won atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		c, _ := h.connect()
		all.Go(func() {
			if c.Call(context.Background(), OpLock, holder("r"+token()), nil) == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d hold the lock", won.Load())
	}
}

func TestLockRefusesWhileAnotherLaneIsOpen(t *testing.T) {
	h := newHost(t)
	_, err := h.recipePut(t.Context(), Recipe{Run: "r1"})
	must(t, err)
	_, err = h.lock(t.Context(), holder("r2"))
	isCode(t, err, "open-run")
	own := holder("r1")
	own.Take = true
	_, err = h.lock(t.Context(), own)
	must(t, err)
	h.release()
	forced := holder("r2")
	forced.Force = true
	_, err = h.lock(t.Context(), forced)
	must(t, err)
	h.release()
	_, err = h.close(t.Context(), Closing{Run: "r1", Outcome: "restored"})
	must(t, err)
	_, err = h.lock(t.Context(), holder("r3"))
	must(t, err)
}

// What an older controller asks for has no effect any more, however it asks.
func TestFencedControllerHasNoEffect(t *testing.T) {
	h := newHost(t)
	c, _ := h.connect()
	var first, second Holder
	must(t, c.Call(t.Context(), OpLock, holder("r1"), &first))
	taken := holder("r1")
	taken.Take = true
	must(t, c.Call(t.Context(), OpLock, taken, &second))
	if second.Epoch <= first.Epoch {
		t.Fatalf("epoch %d after %d", second.Epoch, first.Epoch)
	}
	for _, op := range []string{OpRecipePut, OpClose, OpRestore, OpConfirm, OpArm, OpJobStart, OpApply, OpPin, OpJournal} {
		isCode(t, c.Send(t.Context(), Request{Op: op, Epoch: first.Epoch}, map[string]string{"run": "r1"}, nil), "fenced")
	}
	back := holder("r1")
	back.Epoch = first.Epoch
	isCode(t, c.Call(t.Context(), OpLock, back, nil), "fenced")
	must(t, c.Send(t.Context(), Request{Op: OpRecipePut, Epoch: second.Epoch}, Recipe{Run: "r1"}, nil))
}

// A profile that was asked for late was set after the guard had gone back and
// closed the lane: the epoch was still the highest, and nobody held the lock.
func TestNoCommitStepAfterTheGuardClosedTheLane(t *testing.T) {
	h := newHost(t)
	c, _ := h.connect()
	var held Holder
	must(t, c.Call(t.Context(), OpLock, holder("r1"), &held))
	must(t, c.Send(t.Context(), Request{Op: OpRecipePut, Epoch: held.Epoch}, Recipe{Run: "r1"}, nil))
	_, err := h.close(t.Context(), Closing{Run: "r1", Outcome: "restored", By: ByGuard})
	must(t, err)
	isCode(t, c.Send(t.Context(), Request{Op: OpApply, Epoch: held.Epoch}, Operation{Op: DoProfile, System: newTop}, nil), Restoring)
	must(t, c.Send(t.Context(), Request{Op: OpClose, Epoch: held.Epoch}, Closing{Run: "r1", Outcome: "restored"}, nil))
}

// A host whose restore is stuck has lost its restore point for anybody else: a
// later run would take what is half restored for what the host was.
func TestAStuckHostTakesNoOtherRun(t *testing.T) {
	h := newHost(t)
	_, err := h.lock(t.Context(), holder("r1"))
	must(t, err)
	_, err = h.recipePut(t.Context(), Recipe{Run: "r1"})
	must(t, err)
	_, err = h.close(t.Context(), Closing{Run: "r1", Outcome: "stuck"})
	must(t, err)
	h.release()
	_, err = h.lock(t.Context(), holder("r2"))
	isCode(t, err, "open-run")
	var said *Error // a stuck rollback of r1 was told to resume r1, which is over
	if errors.As(err, &said); !strings.HasPrefix(strings.Join(said.Hint, "\n")+"\n", "deployer resume r1\ndeployer abort r1\ndeployer rollback r1 ") {
		t.Error(said.Hint)
	}
}

// A rollback that got stuck could not be tried with another choice of data: the
// host refused the recipe. While it is under way, it still does.
func TestAStuckWayBackMayBeChosenAnew(t *testing.T) {
	h := newHost(t)
	c, _ := h.connect()
	var held Holder
	must(t, c.Call(t.Context(), OpLock, holder("r1"), &held))
	put := func() error {
		return c.Send(t.Context(), Request{Op: OpRecipePut, Epoch: held.Epoch}, Recipe{Run: "r1"}, nil)
	}
	must(t, put())
	s, err := h.runStore("r1")
	must(t, err)
	_, _, err = h.claim(s, "r1", ByController)
	must(t, err)
	isCode(t, put(), Restoring)
	must(t, c.Send(t.Context(), Request{Op: OpClose, Epoch: held.Epoch}, Closing{Run: "r1", Outcome: "stuck"}, nil))
	must(t, put())
	isCode(t, c.Send(t.Context(), Request{Op: OpApply, Epoch: held.Epoch}, Operation{Op: DoProfile, System: newTop}, nil), Restoring)
}

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const raceTeams = 4 // side by side: a racer mostly waits

// racers may meet at one instant: those that decide, the commit steps before the
// confirmation, and another controller.
var racers = []string{"confirm", "fire", "claim", "profile", "boot", "take"}

type turn struct {
	At    time.Time
	Epoch uint64
}

// TestRaceHasOneDecision: confirm, claim, fire and each commit step at the same
// instant, in processes over one state folder. Every round is decided once, all
// learn the same, no commit step writes after it was decided to go back, and
// the highest epoch is never forgotten.
func TestRaceHasOneDecision(t *testing.T) {
	rounds := 400
	if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
		rounds = 10_000 // most of a minute
	}
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // the order is what counts here, not the disk
	}
	seed := uint64(time.Now().UnixNano())
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for n := range raceTeams {
		m := newMeeting(t)
		rnd := rand.New(rand.NewPCG(seed, uint64(n)))
		all.Go(func() {
			for range rounds / raceTeams {
				saw, err := m.round(t.Context(), rnd)
				mu.Lock()
				for _, s := range saw {
					seen[s]++
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("seed %d: %v (%s)", seed, err, saw)
					return
				}
			}
		})
	}
	all.Wait()
	t.Log(seen)
	for _, s := range []string{"decided confirmed controller", "decided restoring guard", "decided restoring controller", "undone in round 2",
		"profile: ", "profile: restoring", "profile: fenced", "boot: ", "boot: restoring", "boot: fenced", "confirm: restoring", "confirm: fenced"} {
		if seen[s] < rounds/200 {
			t.Errorf("%q was seen %d times: the race says little", s, seen[s])
		}
	}
}

// meeting is a host and its racers: processes that live for all rounds.
type meeting struct {
	*host
	in  map[string]io.Writer
	out map[string]*bufio.Scanner
}

func newMeeting(t *testing.T) *meeting {
	m := &meeting{newHost(t), map[string]io.Writer{}, map[string]*bufio.Scanner{}}
	for _, role := range racers {
		c := exec.Command(os.Args[0], "as-racer", role)
		c.Env = append(os.Environ(), "TEST_PREFIX="+m.dir)
		in, _ := c.StdinPipe()
		out, _ := c.StdoutPipe()
		c.Stderr = os.Stderr
		must(t, c.Start())
		t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
		m.in[role], m.out[role] = in, bufio.NewScanner(out)
	}
	return m
}

// round lets them meet once; what it saw is also for counting.
func (m *meeting) round(ctx context.Context, rnd *rand.Rand) (saw []string, err error) {
	for _, left := range []string{"state/runs", "state/jobs", "etc/profile", "etc/boot"} {
		if err := os.RemoveAll(m.path(left)); err != nil {
			return nil, err
		}
	}
	a := newAgent(fakeOptions(m.dir))
	defer a.release()
	h, err := a.lock(ctx, LockArgs{Run: "r1", Take: true})
	if err != nil {
		return nil, err
	}
	if _, err := a.recipePut(ctx, Recipe{Run: "r1", Operations: []Operation{{Op: DoWriteFile, Path: "/etc/profile"}, {Op: DoWriteFile, Path: "/etc/boot"}}}); err != nil {
		return nil, err
	}
	watcher, err := a.state.lock(runFile("r1", "guard.alive"), false) // that is the racer `fire`
	if err != nil {
		return nil, err
	}
	defer watcher.Close()
	if _, err := a.arm(ctx, Arming{Run: "r1", Budget: 1e-6, Cap: 1}); err != nil {
		return nil, err
	}
	at := time.Now().Add(time.Millisecond)
	var here []string
	for _, role := range racers {
		if role == "claim" && rnd.IntN(3) == 0 || role == "take" && rnd.IntN(4) > 0 {
			continue
		}
		here = append(here, role)
		line, _ := json.Marshal(turn{at.Add(time.Duration(rnd.IntN(1e6))), h.Epoch})
		fmt.Fprintf(m.in[role], "%s\n", line)
	}
	learnt := map[string]string{}
	for _, role := range here {
		if !m.out[role].Scan() {
			return nil, fmt.Errorf("%s is gone", role)
		}
		learnt[role] = m.out[role].Text()
		saw = append(saw, role+": "+learnt[role])
	}
	return m.judge(a.state, h.Epoch, learnt, saw)
}

// judge is the oracle.
func (m *meeting) judge(s *store, epoch uint64, learnt map[string]string, saw []string) ([]string, error) {
	first, second := decisionOf(s, "r1", 1), decisionOf(s, "r1", 2)
	if first == nil {
		return saw, fmt.Errorf("nothing was decided")
	}
	saw = append(saw, "decided "+first.Decision+" "+first.By)
	old := first.Decision == Restoring
	if second != nil {
		saw = append(saw, "undone in round 2")
		if old || second.Decision != Restoring || learnt["claim"] != "" {
			return saw, fmt.Errorf("round 2 is %+v after %+v", second, first)
		}
		old = true
	}
	taken := uint64(strings.Count(strings.Join(saw, " "), "take: "))
	if is := heldBy(s).Epoch; is != epoch+taken {
		return saw, fmt.Errorf("epoch %d after %d, taken by %d others", is, epoch, taken)
	}
	fence, any := taken > 0, true
	may := map[string]map[string]bool{
		"confirm": {"": first.Decision == Confirmed, Restoring: first.Decision == Restoring, "fenced": fence},
		"claim":   {"": old, "fenced": fence},
		"profile": {"": any, Restoring: old, "fenced": fence},
		"boot":    {"": any, Restoring: old, "fenced": fence},
		"fire":    {"": any, "exists": old}, // the claim's restore began first
		"take":    {"": any},
	}
	for role, code := range learnt {
		if !may[role][code] {
			return saw, fmt.Errorf("%s learnt %q, decided was %+v, %+v", role, code, first, second)
		}
	}
	for _, step := range []string{"profile", "boot"} {
		_, err := os.Stat(m.path("etc/" + step))
		if there := err == nil; there != (!old && learnt[step] == "") {
			return saw, fmt.Errorf("%s is there: %t", step, there)
		}
	}
	if late := m.read("late"); late != "" {
		return saw, fmt.Errorf("written after it was decided to go back: %s", late)
	}
	return saw, nil
}

// race is a racer's process.
func race(role, prefix string) {
	out := os.Stdout
	os.Stdout = nil // the watcher's remarks
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var t turn
		if err := json.Unmarshal(in.Bytes(), &t); err != nil {
			panic(err)
		}
		o := fakeOptions(prefix)
		o.Stdout = io.Discard
		o.Disk = func(dir string) (Disk, error) {
			d, err := openDisk(dir, true)
			return watchedDisk{d, prefix, dir}, err
		}
		jobs := &sync.WaitGroup{}
		o.Units = inProcess{o, jobs}
		a := newAgent(o)
		time.Sleep(time.Until(t.At))
		code := ""
		if err := a.race(role, t.Epoch); err != nil {
			if code = asError(err).Code; code == "failed" {
				fmt.Fprintln(os.Stderr, role, err)
			}
		}
		jobs.Wait() // who follows one sees its receipt, which is not its last breath
		fmt.Fprintln(out, code)
	}
}

func (a *agent) race(role string, epoch uint64) error {
	ctx := context.Background()
	ask := func(op string, args any, result any) error {
		raw, _ := json.Marshal(args)
		res := a.call(ctx, Request{Op: op, Epoch: epoch, Args: raw})
		if res.Error != nil {
			return res.Error
		}
		return json.Unmarshal(res.Result, result)
	}
	write := Operation{Op: DoWriteFile, Path: "/etc/" + role, Content: []byte("new"), Digest: sum([]byte("new"))}
	var (
		r    Receipt
		skip json.RawMessage
		err  error
	)
	switch role {
	case "confirm":
		return ask(OpConfirm, RunRef{"r1"}, &skip)
	case "take":
		return ask(OpLock, LockArgs{Run: "r1", Take: true}, &skip)
	case "profile":
		return ask(OpApply, write, &skip)
	case "boot":
		err = ask(OpJobStart, Job{Unit: "deployer-r1-boot.service", Run: "r1", Commit: true, Operation: &write}, &r)
	case "claim":
		err = ask(OpRestore, RunRef{"r1"}, &r)
	case "fire":
		return a.fires(ctx)
	}
	if err == nil && r.State == stateBegun {
		r, err = a.jobWait(ctx, JobRef{Unit: r.Unit, Wait: time.Minute})
	}
	if err == nil && (r.State != stateEnded || r.Code != 0) {
		err = fmt.Errorf("%+v", r)
	}
	return err
}

// fires is the watcher at its deadline, until it has nothing to do or to wait
// for a controller that claimed.
func (a *agent) fires(ctx context.Context) error {
	s, err := a.store(true)
	for done := false; err == nil && !done; {
		if done, _, err = a.step(ctx, s, "r1"); err == nil {
			d := decisionOf(s, "r1", roundOf(s, "r1"))
			done = done || d != nil && d.By != ByGuard
		}
	}
	return err
}

// inProcess starts a unit's program in this process: with a lock of its own for
// each open file it is as good as another one, and 20,000 forks faster.
type inProcess struct {
	Options
	jobs *sync.WaitGroup
}

func (u inProcess) Run(_ context.Context, t Transient) error {
	o := u.Options
	o.Unit, o.Units = t.Name, u
	u.jobs.Go(func() { verb(context.Background(), o, t.Args[len(o.Self)+2:]) })
	return nil
}

func (u inProcess) Do(context.Context, string, ...string) error { return nil }
func (u inProcess) List(context.Context) ([]Unit, error)        { return nil, nil }
func (u inProcess) Show(context.Context, string, ...string) (map[string]string, error) {
	return map[string]string{"ActiveState": "inactive", "LoadState": "not-found"}, nil
}

// watchedDisk sees a file of the host replaced after it was decided to go back.
type watchedDisk struct {
	Disk
	prefix, dir string
}

func (w watchedDisk) Rename(from, to string) error {
	err := w.Disk.Rename(from, to)
	for n := 1; n < 3 && strings.HasSuffix(w.dir, "/etc/"); n++ {
		if data, _ := os.ReadFile(w.prefix + "/state/" + decisionFile("r1", n)); strings.Contains(string(data), Restoring) {
			_ = os.WriteFile(w.prefix+"/late", []byte(to), 0o600)
		}
	}
	return err
}

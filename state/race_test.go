package state_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

const rounds = 200

// raced is what a process tells of its part in a race, and later of one more
// append.
type raced struct {
	Epoch uint64 // 0: it did not get the run
	Acked []string
	Err   string // held, fenced, or nothing
}

func word(err error) string {
	var held *state.Held
	var fenced *state.Fenced
	switch {
	case errors.As(err, &held):
		return "held"
	case errors.As(err, &fenced):
		return "fenced"
	case err != nil:
		return err.Error()
	}
	return ""
}

// racer is one of the processes: it races for each run that it is told of.
func racer() {
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		how, path, _ := strings.Cut(in.Text(), " ")
		d := &state.RunDir{ID: runID, Path: path}
		var r raced
		lease, err := d.Lease(how == "over")
		var j *state.Journal
		if err == nil {
			r.Epoch = lease.Epoch()
			j, _, err = state.Open(path, lease)
		}
		for i := 0; err == nil && i < 3; i++ {
			err = r.append(j, i)
		}
		r.Err = word(err)
		_ = out.Encode(r)
		in.Scan() // all are done
		if j != nil {
			r.Err = word(r.append(j, 9))
			j.Close()
		}
		_ = out.Encode(r)
		if lease != nil {
			_ = lease.Release()
		}
	}
	os.Exit(0)
}

func (r *raced) append(j *state.Journal, i int) error {
	text := fmt.Sprint(os.Getpid(), " ", i)
	err := j.Append(&state.Record{Kind: state.Note, Text: text})
	if err == nil {
		r.Acked = append(r.Acked, text)
	}
	return err
}

// process is a racer as the test sees it.
type process struct {
	to   io.Writer
	from *json.Decoder
}

func startRacer(t *testing.T) *process {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneProcessWinsATakeover$")
	cmd.Env = append(os.Environ(), "STATE_TEST_RACER=1")
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	must(t, err)
	from, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { to.Close(); _ = cmd.Wait() })
	return &process{to, json.NewDecoder(from)}
}

// tell sends all processes a line, with a pause between, and gives what they
// answer.
func tell(t *testing.T, all []*process, line string, pause time.Duration) []raced {
	t.Helper()
	for _, p := range all {
		time.Sleep(pause)
		_, err := fmt.Fprintln(p.to, line)
		must(t, err)
	}
	answers := make([]raced, len(all))
	for i, p := range all {
		must(t, p.from.Decode(&answers[i]))
	}
	return answers
}

// TestOneProcessWinsATakeover lets two processes race for a run that a third
// is writing, or has just given back.
func TestOneProcessWinsATakeover(t *testing.T) {
	if os.Getenv("STATE_TEST_RACER") != "" {
		racer()
	}
	all := []*process{startRacer(t), startRacer(t)}
	how := map[string]int{}
	base := t.TempDir()
	for round := range rounds {
		d := &state.RunDir{ID: runID, Path: filepath.Join(base, fmt.Sprint(round))}
		pause := time.Duration(round/2%8) * 500 * time.Microsecond // some take over from the winner
		race(t, d, all, round%2 == 0, pause, how)
	}
	t.Logf("the losers: %v", how)
}

func race(t *testing.T, d *state.RunDir, all []*process, takeOver bool, pause time.Duration, how map[string]int) {
	t.Helper()
	must(t, os.Mkdir(d.Path, 0o700))
	must(t, os.WriteFile(filepath.Join(d.Path, "ballast"), nil, 0o600))
	lease, err := d.Lease(false)
	must(t, err)
	j, err := state.Create(d.Path, lease)
	must(t, err)
	defer j.Close()
	var first raced
	must(t, first.append(j, 0))
	line, done := "free "+d.Path, make(chan error, 1)
	if takeOver {
		line = "over " + d.Path
		defer lease.Release()
		go func() {
			for i := 1; ; i++ {
				if err := first.append(j, i); err != nil {
					done <- err
					return
				}
			}
		}()
	} else {
		must(t, lease.Release())
		done <- &state.Fenced{}
	}
	read := readMeanwhile(t, d)
	during := tell(t, all, line, pause)
	if err := <-done; word(err) != "fenced" {
		t.Fatal(err)
	}
	after := tell(t, all, "done", 0)
	read()
	acked := first.Acked
	winners := 0
	for i, r := range after {
		acked = append(acked, r.Acked...)
		switch {
		case r.Epoch > 0 && r.Err == "":
			winners++
		case r.Epoch == 0 && r.Err == "held", r.Epoch > 0 && r.Err == "fenced" && takeOver:
			how[r.Err]++
		default:
			t.Fatalf("%+v, then %+v", during[i], r)
		}
	}
	if winners != 1 {
		t.Fatalf("%d winners: %+v", winners, after)
	}
	checkRace(t, d, acked)
}

// readMeanwhile reads until it is told to stop: no takeover is ever damage.
func readMeanwhile(t *testing.T, d *state.RunDir) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
			}
			if _, damage, err := state.Read(d.Path); damage != nil || err != nil {
				t.Error(damage, err)
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// checkRace looks whether what was acknowledged is there, and each epoch's
// records stand behind those of the one before.
func checkRace(t *testing.T, d *state.RunDir, acked []string) {
	t.Helper()
	recs, damage, err := state.Read(d.Path)
	if err != nil || damage != nil {
		t.Fatal(damage, err)
	}
	byEpoch := func(a, b state.Record) int { return int(a.Epoch) - int(b.Epoch) }
	if !slices.IsSortedFunc(recs, byEpoch) || state.Fold(recs).Seq != uint64(len(recs)) {
		t.Fatalf("%+v", recs)
	}
	got := texts(recs)
	for _, text := range acked {
		if !slices.Contains(got, text) {
			t.Fatalf("%q was acknowledged, and is not in %q", text, got)
		}
	}
	// More than that is only what was whole when it was taken over from.
	if len(got) > len(acked)+2 {
		t.Fatalf("%q has more than %q", got, acked)
	}
}

package state_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/state"
)

// disk is a file that can fail, and counts.
type disk struct {
	state.File
	writes, syncs atomic.Int64
	onWrite       func([]byte) (int, error) // nil: as the file does
	onSync        func() error
	pause         time.Duration // of a sync
}

func (d *disk) Write(b []byte) (int, error) {
	d.writes.Add(1)
	if d.onWrite != nil {
		n, err := d.onWrite(b)
		if n > 0 {
			if _, werr := d.File.Write(b[:n]); werr != nil {
				return 0, werr
			}
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return d.File.Write(b)
}

func (d *disk) Sync() error {
	d.syncs.Add(1)
	time.Sleep(d.pause)
	if d.onSync != nil {
		if err := d.onSync(); err != nil {
			return err
		}
	}
	return d.File.Sync()
}

func wrapped(t testing.TB) (*state.Journal, string, *disk) {
	t.Helper()
	j, dir := create(t)
	d := &disk{}
	j.Wrap(func(f state.File) state.File { d.File = f; return d })
	return j, dir, d
}

func TestAppendFillsWhatAReaderReads(t *testing.T) {
	j, dir := create(t)
	want := state.Record{
		Kind: state.StepDone, Host: "web1", Text: "a \xff <b>\u2028", Hint: []string{"x"},
		Time: time.Now(), Data: []byte("{ \"a\" : \"<&>\",\n \"n\": 1e400 }"),
	}
	must(t, j.Append(&want))
	recs, _, err := state.Read(dir)
	must(t, err)
	if diff := cmp.Diff([]state.Record{want}, recs); diff != "" {
		t.Fatal(diff)
	}
	if want.V != state.Schema || want.Seq != 1 || want.Run != runID {
		t.Fatalf("filled as %+v", want)
	}
}

func TestShownKindsAreNotWritten(t *testing.T) {
	j, dir := create(t)
	must(t, j.Redact("hunter22"))
	rec := state.Record{Kind: state.StepProgress, Text: "with hunter22"}
	must(t, j.Append(&rec))
	if rec.Seq != 0 || rec.Text != "with [secret]" || len(readJournal(t, dir)) != 0 {
		t.Fatalf("got %+v and %q", rec, readJournal(t, dir))
	}
}

func TestRecordOfAnotherRunIsRefused(t *testing.T) {
	j, _ := create(t)
	appendNotes(t, j, 1)
	if err := j.Append(&state.Record{Run: "run-2", Kind: state.Note}); err == nil {
		t.Fatal("a record of another run was taken")
	}
	if err := j.Append(&state.Record{Kind: state.Note, Data: []byte("{")}); err == nil {
		t.Fatal("data that is not JSON was taken")
	}
	appendNotes(t, j, 1) // neither ends the journal
}

func TestOneWriteAndOneSyncPerAppend(t *testing.T) {
	j, _, d := wrapped(t)
	appendNotes(t, j, 10)
	if d.writes.Load() != 10 || d.syncs.Load() != 10 {
		t.Fatalf("%d writes and %d syncs for 10 appends", d.writes.Load(), d.syncs.Load())
	}
}

func TestConcurrentAppendsShareSyncs(t *testing.T) {
	j, dir, d := wrapped(t)
	d.pause = 2 * time.Millisecond
	const lanes, each = 16, 25
	appendFromLanes(t, j, lanes, each)
	recs, damage, err := state.Read(dir)
	if err != nil || damage != nil || len(recs) != lanes*each {
		t.Fatalf("%d records, %v, %v", len(recs), damage, err)
	}
	if syncs := d.syncs.Load(); syncs > lanes*each/4 {
		t.Fatalf("%d syncs for %d appends", syncs, lanes*each)
	}
	t.Logf("%d appends, %d syncs", lanes*each, d.syncs.Load())
}

func appendFromLanes(t testing.TB, j *state.Journal, lanes, each int) {
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := range each {
				rec := state.Record{Kind: state.Note, Host: fmt.Sprint(lane), Text: fmt.Sprint(i)}
				if err := j.Append(&rec); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// An append must not return before an fsync that began after its write.
func TestAppendReturnsWhenDurable(t *testing.T) {
	j, dir, d := wrapped(t)
	var mu sync.Mutex
	durable := 0
	d.onSync = func() error {
		size := len(readJournal(t, dir))
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		durable = max(durable, size)
		return nil
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				rec := state.Record{Kind: state.Note}
				if err := j.Append(&rec); err != nil {
					t.Error(err)
				}
				mu.Lock()
				synced := readJournal(t, dir)[:durable]
				mu.Unlock()
				if !strings.Contains(string(synced), fmt.Sprintf(`"seq":%d,`, rec.Seq)) {
					t.Errorf("record %d was not durable", rec.Seq)
				}
			}
		})
	}
	wg.Wait()
}

func TestSyncErrorEndsTheJournal(t *testing.T) {
	j, dir, d := wrapped(t)
	appendNotes(t, j, 1)
	d.onSync = func() error { return syscall.EIO }
	first := j.Append(&state.Record{Kind: state.Note})
	d.onSync = nil
	second := j.Append(&state.Record{Kind: state.Note})
	if !errors.Is(first, syscall.EIO) || !errors.Is(second, syscall.EIO) {
		t.Fatalf("got %v, then %v", first, second)
	}
	must(t, j.Close())
	j, recs, err := state.Open(dir, nil)
	must(t, err)
	defer j.Close()
	appendNotes(t, j, 1)
	if len(recs) != 2 {
		t.Fatalf("opened again it holds %v", texts(recs))
	}
}

func TestWriteErrorLeavesNoPartAndEndsTheJournal(t *testing.T) {
	j, dir, d := wrapped(t)
	appendNotes(t, j, 1)
	d.onWrite = func([]byte) (int, error) { return 10, syscall.EIO }
	if err := j.Append(&state.Record{Kind: state.Note}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	d.onWrite = nil
	if err := j.Append(&state.Record{Kind: state.Note}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if data := readJournal(t, dir); len(split(data)) != 1 || data[len(data)-1] != '\n' {
		t.Fatalf("left %q", data)
	}
}

func TestReadWhileWriting(t *testing.T) {
	j, dir := create(t)
	done := make(chan struct{})
	go func() { defer close(done); appendFromLanes(t, j, 4, 100) }()
	last := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		recs, damage, err := state.Read(dir)
		if err != nil || damage != nil || len(recs) < last {
			t.Fatalf("%d records after %d, %v, %v", len(recs), last, damage, err)
		}
		last = len(recs)
	}
	if last != 400 {
		t.Fatalf("%d records at the end", last)
	}
}

func TestOneWriterPerJournal(t *testing.T) {
	j, dir := create(t)
	if _, _, err := state.Open(dir, nil); !errors.Is(err, syscall.EWOULDBLOCK) && !strings.Contains(fmt.Sprint(err), "another process") {
		t.Fatalf("a second writer got %v", err)
	}
	if _, err := state.Create(dir, nil); !errors.Is(err, os.ErrExist) {
		t.Fatalf("created twice: %v", err)
	}
	must(t, j.Close())
	must(t, j.Close())
	if err := j.Append(&state.Record{Kind: state.Note}); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	_, dir := create(t)
	for name, want := range map[string]os.FileMode{".": 0o700, "journal.jsonl": 0o600, "ballast": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s is %o, want %o", name, got, want)
		}
	}
}

// TestKilledWriterLosesNothingAcknowledged kills -9 a process that says each
// record's number when Append has returned.
func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_WRITER"); dir != "" {
		writeForEver(dir)
	}
	d := &state.RunDir{ID: runID, Path: filepath.Join(t.TempDir(), runID)}
	must(t, os.Mkdir(d.Path, 0o700))
	for range 5 {
		acknowledged := killWriter(t, d)
		if d.Live() {
			t.Fatal("the dead hold the lease")
		}
		recs, damage, err := state.Read(d.Path)
		if err != nil || damage != nil || uint64(len(recs)) < acknowledged {
			t.Fatalf("%d of %d records, %v, %v", len(recs), acknowledged, damage, err)
		}
	}
}

func writeForEver(dir string) {
	d := &state.RunDir{ID: runID, Path: dir}
	_, err := os.Stat(filepath.Join(dir, "journal.jsonl"))
	open := func(l *state.Lease) (j *state.Journal, err error) { j, _, err = state.Open(dir, l); return }
	if err != nil {
		open = func(l *state.Lease) (*state.Journal, error) { return state.Create(dir, l) }
	}
	lease, err := d.Lease(false)
	var j *state.Journal
	if err == nil {
		j, err = open(lease)
	}
	for err == nil {
		rec := state.Record{Kind: state.Note, Text: strings.Repeat("x", 3000)}
		err = j.Append(&rec)
		fmt.Println("ack", rec.Seq)
	}
	fmt.Println(err)
	os.Exit(1)
}

func killWriter(t *testing.T, d *state.RunDir) (acknowledged uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWriterLosesNothingAcknowledged$")
	cmd.Env = append(os.Environ(), "STATE_TEST_WRITER="+d.Path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if _, err := fmt.Sscanf(lines.Text(), "ack %d", &acknowledged); err != nil {
			t.Fatal(lines.Text())
		}
		if n == 20 {
			if !d.Live() {
				t.Error("a living writer is not seen")
			}
			must(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait()
	return acknowledged
}

package state_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/state"
)

// bare is the time of n plain writes and fsyncs of a record's size.
func bare(b *testing.B, n int) time.Duration {
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "bare"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	must(b, err)
	defer f.Close()
	line := []byte(strings.Repeat("x", 400))
	start := time.Now()
	for range n {
		_, err := f.Write(line)
		must(b, err)
		must(b, f.Sync())
	}
	return time.Since(start)
}

func record() *state.Record {
	return &state.Record{Kind: state.StepDone, Host: "web1", Text: strings.Repeat("x", 200)}
}

func BenchmarkAppend(b *testing.B) {
	j, _ := create(b)
	for b.Loop() {
		must(b, j.Append(record()))
	}
	took := b.Elapsed()
	b.ReportMetric(float64(took)/float64(bare(b, b.N)), "x-bare")
}

func BenchmarkAppendFrom8Lanes(b *testing.B) {
	j, _ := create(b)
	start := time.Now()
	var wg sync.WaitGroup
	for lane := range 8 {
		wg.Go(func() {
			for i := lane; i < b.N; i += 8 {
				if err := j.Append(record()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	b.StopTimer()
	b.ReportMetric(float64(took)/float64(bare(b, b.N)), "x-bare")
}

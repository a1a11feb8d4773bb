package main_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

const production = labtest.Host("production")

// restores: from the check that fails to the old system, verified over a new
// connection, against its bare activation over ssh.
func (b *bench) restores() {
	b.write("bad.yaml", fmt.Sprintf(benchSwitch, `{command: ["false"], within: 1s}`))
	var ours, bare []time.Duration
	for i := range rounds {
		next, old := b.variant([]string{"2.2.1", "2.2.0"}[i%2]), production.Facts(b.T).System
		b.exit = 20
		d, _ := span(b.events("bad.yaml"), func(r state.Record) bool {
			return r.Kind == state.StepFailed || r.Kind == state.UndoDone && r.Step == "undo/restore@production"
		})
		b.exit = 0
		ours = append(ours, d)
		b.run("ssh", "root@production", next+"/bin/switch-to-configuration test")
		bare = append(bare, b.timed(func() { b.run("ssh", "root@production", old+"/bin/switch-to-configuration test") }))
	}
	b.say("validation failed to old system verified, against its bare activation: %s  (at most 1.5 and 2 s)", ratio(ours, bare))
}

// guards: from the deadline to the start of the restore, the controller being
// dead. Hosts of the lab share this machine's clocks.
func (b *bench) guards() {
	b.write("watched.yaml", strings.Replace(fmt.Sprintf(benchSwitch, "{command: \"sleep 20\", within: 20s}"), "30m", "41s", 1))
	var late []time.Duration
	for i := range 3 {
		b.variant(fmt.Sprintf("2.3.%d", i)) // each is refused after this: it was never confirmed
		into := filepath.Join(b.TempDir(), "events")
		cmd := exec.Command(b.bin, "run", "watched.yaml", "--yes", "--json-into", into)
		cmd.Dir = b.dir
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		within(b.T, time.Minute, "the check", func() bool {
			text, _ := os.ReadFile(into)
			return bytes.Contains(text, []byte("validate/contact@production"))
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		const latest = "cd /nix/var/deployer; r=$(ls runs | tail -1); "
		within(b.T, time.Minute, "the guard", func() bool {
			_, err := production.Try(latest + "test -e runs/$r/closing.json")
			return err == nil
		})
		var g agent.Guard
		var r agent.Receipt
		b.json(production.Enter(b.T, latest+"cat runs/$r/guard.json"), &g)
		b.json(production.Enter(b.T, latest+"cat jobs/deployer-restore-$r-1.service/receipt.json"), &r)
		late = append(late, r.Started.Sub(boottime(b.T, g.Deadline)))
	}
	b.say("the guard's deadline to the start of its restore:  %.1f ms  (worst of %d: %.1f ms)", ms(median(late)), len(late), ms(max(late[0], late[1], late[2])))
}

func (b *bench) json(text string, v any) {
	b.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		b.Fatal(err)
	}
}

// boottime is when the clock since the boot had a value.
func boottime(t interface{ Fatal(...any) }, seconds float64) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Now().Add(time.Duration(seconds*1e9) - time.Duration(ts.Nano()))
}

// upload: what the first step takes longer where the agent is not there yet,
// at a round trip of 20 ms, against as many bytes through ssh.
func (b *bench) upload() {
	packed, err := os.ReadFile("../../cmd/internal/agents/bin/agent-amd64.gz")
	if err != nil {
		b.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		b.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	production.Net(b.T, "delay", "10ms")
	defer production.Net(b.T, "clear")
	var ours, bare []time.Duration
	for i := range 5 {
		var took [2]time.Duration
		for j := range took {
			b.deployedBy(2*i + j)
			if j == 0 {
				production.Enter(b.T, "rm -rf /nix/var/deployer/bin")
			}
			took[j], _ = span(b.events("one.yaml"), func(r state.Record) bool { return journalled(r) && r.Step == "switch/lock@production" })
		}
		ours = append(ours, took[0]-took[1])
		with := func(content []byte) time.Duration {
			cmd := exec.Command("ssh", "root@production", "cat > /tmp/upload")
			cmd.Stdin = bytes.NewReader(content)
			return b.timed(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			})
		}
		bare = append(bare, with(plain)-with(nil))
	}
	b.say("the agent: %.2f MiB, %.2f MiB packed; its upload at 20 ms round trip against cat through ssh:  %s",
		float64(len(plain))/(1<<20), float64(len(packed))/(1<<20), ratio(ours, bare))
}

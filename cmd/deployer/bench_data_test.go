package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases/agent"
)

const benchSet = "for i in 1 2 3 4 5 6 7 8; do p=/persist/bench/s$i; "

// bareSet is a set without anything around it: what is dirty is written out,
// eight calls, and the commit.
const bareSet = `package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	dir, err := btrfs.Open(os.Args[1])
	must(err)
	for n, in := 0, bufio.NewScanner(os.Stdin); in.Scan(); n++ {
		must(btrfs.Sync(dir))
		for _, src := range os.Args[2:] {
			f, err := btrfs.Open(src)
			must(err)
			must(btrfs.Snapshot(f, dir, fmt.Sprintf("bare-%d-%s", n, filepath.Base(src))))
			f.Close()
		}
		must(btrfs.Sync(dir))
		fmt.Println("done")
	}
}
`

// channel is a command of an open connection as a stream.
type channel struct {
	io.Reader
	io.WriteCloser
}

func (b *bench) remote(command string) channel {
	client := b.dial()
	b.Cleanup(func() { client.Close() })
	s, err := client.NewSession()
	if err != nil {
		b.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start(command); err != nil {
		b.Fatal(err)
	}
	return channel{out, in}
}

// sets: one set of eight subvolumes, one request over an open connection,
// against the same calls without anything around them, over another.
func (b *bench) sets() {
	b.deployedBy(0)
	b.events("one.yaml") // puts the agent there
	production.Enter(b.T, "mkdir -p /persist/bench /persist/bench/bare; "+benchSet+"btrfs -q subvolume create $p; echo > $p/f; done")
	b.write("bare.go", bareSet)
	bin := filepath.Join(b.dir, "bare")
	here, err := os.Getwd()
	if err != nil {
		b.Fatal(err)
	}
	b.run("bash", "-c", "cd "+here+" && CGO_ENABLED=0 go build -o "+bin+" "+filepath.Join(b.dir, "bare.go"))
	b.run("bash", "-c", "ssh root@production 'cat > /root/bare && chmod +x /root/bare' < "+bin)
	var paths []string
	for i := range 8 {
		paths = append(paths, "/persist/bench/s"+strconv.Itoa(i+1))
	}
	bare := b.remote("/root/bare /persist/bench/bare " + strings.Join(paths, " "))
	lines := bufio.NewScanner(bare)
	c := agent.NewClient(b.remote(`sh -c 'cd /nix/var/deployer; exec ./agent run $(ls bin | head -n1) serve'`))
	defer c.Close()
	var h agent.Holder
	if err := c.Call(b.Context(), agent.OpLock, agent.LockArgs{Run: "bench"}, &h); err != nil {
		b.Fatal(err)
	}
	var ours, theirs []time.Duration
	for i := range 4 * rounds {
		production.Enter(b.T, benchSet+"head -c 100000 /dev/urandom > $p/f; done")
		first := func() {
			args := agent.SnapshotArgs{Run: "bench", Stamp: fmt.Sprintf("20260101T0000%02dZ", i), Paths: paths}
			if err := c.Send(b.Context(), agent.Request{Op: agent.OpSnapshot, Epoch: h.Epoch}, args, nil); err != nil {
				b.Fatal(err)
			}
		}
		second := func() {
			fmt.Fprintln(bare)
			if !lines.Scan() {
				b.Fatal("the bare calls failed")
			}
		}
		if i%2 == 0 { // both write the same dirty data out, each in its turn
			ours = append(ours, b.timed(first))
		} else {
			theirs = append(theirs, b.timed(second))
		}
	}
	b.say("a set of 8 subvolumes against the bare calls, over open connections: %s  (at most 1.5)", ratio(ours, theirs))
}

// down: how long a service is away whose mounted subvolume is restored, from its
// end to the begin of its start.
func (b *bench) down() {
	const at = "/var/lib/services"
	b.deployedBy(0)
	b.events("one.yaml") // takes a set
	var rows []view.SnapshotsOf
	if err := json.Unmarshal([]byte(b.run(b.bin, "snapshots", "list", "--host", "production", "--json")), &rows); err != nil || len(rows) != 1 {
		b.Fatal(err, rows)
	}
	i := slices.IndexFunc(rows[0].Snapshots, func(s agent.Snapshot) bool { return s.Source == at && !s.Replaced })
	path := rows[0].Snapshots[i].Path
	production.Enter(b.T, "printf '[Service]\\nWorkingDirectory="+at+"\\nExecStart=/bin/sleep infinity\\n' > /run/systemd/system/user-of-it.service"+
		" && systemctl add-wants --runtime multi-user.target user-of-it && systemctl start user-of-it") // wanted, so its times are not forgotten
	var down []time.Duration
	for range rounds {
		b.run(b.bin, "snapshots", "restore", "production", path, "--yes")
		stamp := func(property string) time.Duration {
			us, err := strconv.ParseInt(strings.TrimSpace(production.Enter(b.T, "systemctl show -P "+property+" user-of-it")), 10, 64)
			if err != nil || us == 0 {
				b.Fatal(property, us, err)
			}
			return time.Duration(us) * time.Microsecond
		}
		down = append(down, stamp("InactiveExitTimestampMonotonic")-stamp("InactiveEnterTimestampMonotonic"))
	}
	b.say("a service is down for a restore of %s, without its own start: %.1f ms median of %d", at, ms(median(down)), len(down))
}

package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBenchData prints what snapshots and previews take beside the bare thing
// and beside other tools, as ratios; `make bench` runs it.
func TestBenchData(t *testing.T) {
	if os.Getenv("DEPLOYER_BENCH") == "" {
		t.Skip("a measurement, not a test: make bench")
	}
	defer func(was int64) { diskSize = was }(diskSize)
	diskSize = 3 << 30
	names := []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"}
	s := newStock(t, append(slices.Clone(names), "many")...)
	const files = 200_000
	s.sh(`cd srv/many && for d in $(seq 200); do mkdir $d; (cd $d; seq %d | split -l1 -a3 -d - f); done; sync`, files/200)
	var paths []string
	for _, n := range names {
		paths = append(paths, "/srv/"+n)
		s.file("srv/"+n+"/f", "x")
	}
	n := 0
	set := func(dir string, paths ...string) func() {
		return func() {
			n++
			var err error
			s.set, err = s.snapshot(t.Context(), SnapshotArgs{Run: "r-1", Dir: dir, Stamp: fmt.Sprintf("20260101T%06dZ", n), Paths: paths})
			must(t, err)
		}
	}
	one := fastest(t, set("/disk/snaps", "/srv/s1"))
	many := fastest(t, set("/disk/snaps", "/srv/many"))
	fmt.Printf("bench  a snapshot of %d files against one of 1 file:  %.1f ms / %.1f ms = %.2f\n", files, ms(many), ms(one), float64(many)/float64(one))

	eight := fastest(t, set("/disk/snaps", paths...))
	for tool, run := range map[string]func(){"snapper": s.snapper(names), "btrbk": s.btrbk(names)} {
		took := fastest(t, run)
		fmt.Printf("bench  8 subvolumes with %s against a set of them:  %.1f ms / %.1f ms = %.1f times slower (its start included, ours is a running agent)\n", tool, ms(took), ms(eight), float64(took)/float64(eight))
	}

	list := func(dir string) string { return "<(cd " + dir + "; find . -printf '%p %s %T@ %m\n' | LC_ALL=C sort)" }
	walk := fastest(t, func() { s.sh("find srv/many -printf '%%p %%s %%T@ %%m\n' > walked") })
	for i, c := range []struct{ changed, folders int }{{12, 12}, {1000, 1}, {1000, 200}} { // the kernel's part is by the leaf of its tree
		set("/disk/snaps", "/srv/many")()
		s.sh("cd srv/many && for i in $(seq 0 %d); do echo changed%d > $((i %% %d + 1))/f$(printf %%03d $((i / %d))); done; sync", c.changed-1, i, c.folders, c.folders)
		both := fastest(t, func() {
			s.sh("diff %s %s > walked || true", list("disk/snaps/"+filepath.Base(s.set.Snapshots[0].Path)), list("srv/many"))
		})
		took := fastest(t, func() {
			p, err := s.preview(t.Context(), PreviewArgs{Snapshot: s.set.Snapshots[0]})
			must(t, err)
			if p.Counts.Reverted != c.changed {
				t.Fatal(p.Counts)
			}
		})
		fmt.Printf("bench  a preview of %d changed in %d folders among %d files against a walk of the tree, all in memory:  %.1f ms / %.1f ms, %.1f times faster (at least 20); %.1f times than walks of both trees and their diff\n",
			c.changed, c.folders, files, ms(took), ms(walk), float64(walk)/float64(took), float64(both)/float64(took))
	}
}

// fastest is the median of some.
func fastest(t *testing.T, f func()) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 9 {
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("apt-get install -y --no-install-recommends %s", program)
	}
}

func (s *stock) snapper(names []string) func() {
	need(s.t, "snapper")
	var all []string
	for _, n := range names {
		name := fmt.Sprintf("bench-%d-%s", os.Getpid(), n)
		s.sh("snapper --no-dbus -c %s create-config %s", name, s.path("srv/"+n))
		s.t.Cleanup(func() { s.sh("snapper --no-dbus -c %s delete-config", name) })
		all = append(all, "snapper --no-dbus -c "+name+" create")
	}
	return func() { s.sh("%s", strings.Join(all, "; ")) }
}

func (s *stock) btrbk(names []string) func() {
	need(s.t, "btrbk")
	conf := "timestamp_format long-iso\nsnapshot_preserve_min all\nsnapshot_dir btrbk\nvolume " + s.path("disk") + "\n"
	for _, n := range names {
		conf += " subvolume " + n + "\n"
	}
	s.file("btrbk.conf", conf)
	s.sh("mkdir disk/btrbk")
	return func() { s.sh("btrbk -q -c btrbk.conf snapshot") }
}

package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

func (a *agent) probeFile(ctx context.Context, p Probe) Sample {
	if p.Body == "" {
		if _, err := os.Stat(a.host(p.Target)); err != nil {
			return no("%v", err)
		}
		return yes("%s exists", p.Target)
	}
	f, err := a.fileGet(ctx, FileRef{Path: p.Target})
	switch {
	case err != nil:
		return no("%v", err)
	case f.Digest == "":
		return no("%s does not exist", p.Target)
	case !bytes.Contains(f.Content, []byte(p.Body)):
		return no("%s does not contain %q", p.Target, p.Body)
	}
	return yes("%s contains %q", p.Target, p.Body)
}

// probeMount: Body, if given, is the wanted file system type.
func (a *agent) probeMount(_ context.Context, p Probe) Sample {
	m := mountOf(readMounts(a.host("/proc/self/mountinfo")), p.Target)
	switch {
	case m.Path != p.Target || m.Path == "":
		return no("%s is not mounted", p.Target)
	case p.Body != "" && m.FS != p.Body:
		return no("%s is %s, want %s", p.Target, m.FS, p.Body)
	}
	return yes("%s is mounted, %s", p.Target, m.FS)
}

// probeDisk gives values; whether they are good enough is the caller's rule.
func (a *agent) probeDisk(_ context.Context, p Probe) Sample {
	var st unix.Statfs_t
	if err := unix.Statfs(a.host(p.Target), &st); err != nil {
		return no("%s: %v", p.Target, err)
	}
	size, total, free := float64(st.Bsize), float64(st.Blocks), float64(st.Bavail)
	s := yes("%.1f %% of %s is free", 100*free/total, p.Target)
	s.Values = map[string]float64{
		"total_bytes": total * size, "free_bytes": free * size, "used_bytes": float64(st.Blocks-st.Bfree) * size,
		"free_percent": 100 * free / total, "used_percent": 100 - 100*free/total,
	}
	if st.Files > 0 { // Btrfs has no fixed number of inodes
		s.Values["inodes_free_percent"] = 100 * float64(st.Ffree) / float64(st.Files)
	}
	return s
}

func (a *agent) probeSubvolumes(_ context.Context, p Probe) Sample {
	var bad []string
	for _, path := range p.Paths {
		if _, err := a.fs.describe(a.host(path)); err != nil {
			bad = append(bad, err.Error())
		}
	}
	if len(bad) > 0 || len(p.Paths) == 0 {
		return no("%d of %d are not subvolumes: %s", len(bad), len(p.Paths), strings.Join(bad, "; "))
	}
	return yes("all %d are subvolumes", len(p.Paths))
}

func (a *agent) probeSnapshot(_ context.Context, p Probe) Sample {
	newest, path, err := btrfs.NewestReadOnly(a.host(p.Target))
	if err != nil {
		return no("%v", err)
	}
	if path == "" {
		return no("no read-only snapshot below %s", p.Target)
	}
	age := time.Since(newest)
	s := Sample{OK: p.Newer <= 0 || age <= p.Newer, Detail: fmt.Sprintf("the newest, %s, is %s old", path, age.Round(time.Second)),
		Values: map[string]float64{"age_seconds": age.Seconds()}}
	return s
}

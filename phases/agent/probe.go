package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

const (
	probeDefault = 10 * time.Second
	bodyMax      = 64 << 10
	outputTail   = 2 << 10
)

// Look takes one look from where it is called: tcp and http work on the
// controller as well as on a host.
func Look(ctx context.Context, p Probe) Sample {
	s, _ := newAgent(Options{}).probe(ctx, p)
	return s
}

var probes = map[string]func(*agent, context.Context, Probe) Sample{
	"command":    (*agent).probeCommand,
	"unit":       (*agent).probeUnit,
	"tcp":        (*agent).probeTCP,
	"http":       (*agent).probeHTTP,
	"file":       (*agent).probeFile,
	"mount":      (*agent).probeMount,
	"disk":       (*agent).probeDisk,
	"subvolumes": (*agent).probeSubvolumes,
	"snapshot":   (*agent).probeSnapshot,
}

// probe always answers, within the probe's time: what could not be seen is not
// OK, and neither is a value that is no number.
func (a *agent) probe(ctx context.Context, p Probe) (Sample, error) {
	start := time.Now()
	if p.Timeout <= 0 {
		p.Timeout = probeDefault
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	seen := make(chan Sample, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				seen <- no("the probe panicked: %v", r)
			}
		}()
		look, ok := probes[p.Kind]
		if !ok {
			seen <- no("this agent cannot look at %q", p.Kind)
			return
		}
		seen <- look(a, ctx, p)
	}()
	var s Sample
	select {
	case s = <-seen:
	case <-ctx.Done(): // a file system that hangs does not know contexts
		select {
		case s = <-seen:
		case <-time.After(execGrace + 100*time.Millisecond):
			s = no("no answer within %s", p.Timeout)
		}
	}
	s.Took = time.Since(start).Seconds()
	return numbers(s), nil
}

// numbers drops what is no number: JSON has none, and no data is never a pass.
func numbers(s Sample) Sample {
	maps.DeleteFunc(s.Values, func(k string, v float64) bool {
		bad := math.IsNaN(v) || math.IsInf(v, 0)
		if bad {
			s.OK, s.Detail = false, k+" is not a number"
		}
		return bad
	})
	s.Detail, s.Output = clean(s.Detail), clean(s.Output)
	return s
}

func yes(format string, args ...any) Sample {
	return Sample{OK: true, Detail: fmt.Sprintf(format, args...)}
}
func no(format string, args ...any) Sample { return Sample{Detail: fmt.Sprintf(format, args...)} }

func (a *agent) probeCommand(ctx context.Context, p Probe) Sample {
	res, err := a.exec(ctx, ExecArgs{Args: p.Args, Timeout: p.Timeout})
	if err != nil {
		return no("%v", err)
	}
	s := Sample{OK: res.Code == 0 && !res.TimedOut, Detail: fmt.Sprintf("exit %d", res.Code), Values: map[string]float64{"code": float64(res.Code)}}
	if res.TimedOut || ctx.Err() != nil {
		s.OK, s.Detail = false, fmt.Sprintf("did not end within %s", p.Timeout)
	} else if res.Signal != "" {
		s.OK, s.Detail = false, "ended by signal "+res.Signal
	}
	out := append(res.Stdout, res.Stderr...)
	s.Output = string(out[max(0, len(out)-outputTail):])
	return s
}

func (a *agent) probeUnit(ctx context.Context, p Probe) Sample {
	if p.Start {
		if err := a.Units.Do(ctx, "start", p.Target); err != nil && ctx.Err() == nil {
			return a.unitFailed(ctx, p.Target, err)
		}
	}
	for {
		u, err := a.Units.Show(ctx, p.Target, "LoadState", "ActiveState", "SubState", "Type", "Result")
		if ctx.Err() != nil || err != nil {
			return no("%s: %v", p.Target, errors.Join(ctx.Err(), err))
		}
		switch {
		case u["ActiveState"] == "active" && u["SubState"] != "auto-restart":
			return yes("%s is active (%s)", p.Target, u["SubState"])
		case p.Start && u["ActiveState"] == "inactive" && u["LoadState"] == "loaded" && u["Result"] == "success":
			return yes("%s ran and ended well", p.Target)
		case p.Start && u["ActiveState"] == "activating" && u["SubState"] != "auto-restart":
			if pause(ctx, 200*time.Millisecond) == nil {
				continue
			}
		}
		return a.unitFailed(ctx, p.Target, fmt.Errorf("%s is %s (%s), result %s, load state %s", p.Target, u["ActiveState"], u["SubState"], u["Result"], u["LoadState"]))
	}
}

func (a *agent) unitFailed(ctx context.Context, unit string, err error) Sample {
	s := no("%v", err)
	if out, e := a.Journal.Read(ctx, OutputArgs{Unit: unit, Max: 20}); e == nil {
		text := strings.Join(out.Lines, "\n")
		s.Output = text[max(0, len(text)-outputTail):]
	}
	return s
}

func (a *agent) probeTCP(ctx context.Context, p Probe) Sample {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Target)
	if err != nil {
		return no("%v", err)
	}
	conn.Close()
	return yes("%s answers", p.Target)
}

func (a *agent) probeHTTP(ctx context.Context, p Probe) Sample {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Target, nil)
	if err != nil {
		return no("%v", err)
	}
	for k, v := range p.Headers {
		if strings.EqualFold(k, "host") {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	// A connection of its own each time, no proxy from somebody's environment,
	// and the answer itself instead of where it points.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return no("%v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyMax))
	s := judgeHTTP(p, res.StatusCode, body)
	if err != nil && s.OK {
		s = no("%v", err)
	}
	return s
}

func judgeHTTP(p Probe, status int, body []byte) Sample {
	s := Sample{Values: map[string]float64{"status": float64(status)}, Output: string(body[:min(len(body), outputTail)])}
	switch {
	case p.Status != 0 && status != p.Status:
		s.Detail = fmt.Sprintf("%d, want %d", status, p.Status)
	case p.Status == 0 && status >= 400:
		s.Detail = fmt.Sprintf("%d, want below 400", status)
	case !bytes.Contains(body, []byte(p.Body)):
		s.Detail = fmt.Sprintf("%d, but the first %d bytes do not contain %q", status, bodyMax, p.Body)
	default:
		s.OK, s.Detail, s.Output = true, fmt.Sprintf("%d", status), ""
	}
	return s
}

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
		if err := btrfs.CheckRoot(a.host(path)); err != nil {
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

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"
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
	look, ok := probes[p.Kind]
	if !ok {
		return no("this agent cannot look at %q", p.Kind), nil
	}
	seen := make(chan Sample, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				seen <- no("the probe panicked: %v", r)
			}
		}()
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

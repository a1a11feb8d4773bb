package view

import (
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/state"
)

// Failure prints an error: what, where, what is safe, what to type next.
func (s *Streams) Failure(err error) {
	f := phases.AsFailure(err)
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(f.Error()), "\n") {
		if line = Clean(line); i == 0 {
			b.WriteString(s.style(red, "error: ") + line + "\n")
		} else {
			b.WriteString("       " + line + "\n")
		}
	}
	for _, line := range f.Output {
		b.WriteString(s.style(dim, "  | ") + Clean(line) + "\n")
	}
	if f.Safe != "" {
		b.WriteString(" safe: " + Clean(f.Safe) + "\n")
	}
	s.hints(&b, f.Hint)
	s.Notef("%s", b.String())
}

func (s *Streams) hints(b *strings.Builder, hints []string) {
	for i, h := range unique(hints) {
		label := " next: "
		if i > 0 {
			label = "       "
		}
		b.WriteString(s.style(cyan, label) + Clean(s.Here(h)) + "\n")
	}
}

// Here is a hint as it is typed on this machine and of this project: the address
// `local` is no name that ssh knows, and what was given by -f is given again.
func (s *Streams) Here(hint string) string {
	if rest, ours := strings.CutPrefix(hint, "deployer "); ours && s.Project != "" && !strings.Contains(hint, " -f") && !strings.Contains(hint, "--project") {
		name, err := syntax.Quote(s.Project, syntax.LangBash)
		if err != nil { // it has a NUL byte, so nobody typed it
			return hint
		}
		return "deployer -f " + name + " " + rest
	}
	rest, local := strings.CutPrefix(hint, "ssh local ")
	if local && strings.HasPrefix(rest, "'") {
		return "sh -c " + rest
	}
	return rest
}

// unique drops what was said already.
func unique(list []string) []string {
	var out []string
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// Ended prints how a run ended.
type Ended struct {
	Run     string
	Runbook string
	Report  string // path
	Took    float64
	Undoes  string

	DataOnly bool   // it restored data and nothing else
	Undo     string // the command that restores what that has replaced
}

// Outcome prints the closing lines of a run.
func (s *Streams) Outcome(o *phases.Outcome, e Ended) {
	if o.Failure != nil {
		f := *o.Failure
		f.Safe, f.Hint = "", nil
		s.Failure(&f)
	}
	var b strings.Builder
	b.WriteString("\n" + s.verdict(o, e) + "\n")
	hosts := widest(keys(o.Lanes))
	for _, host := range keys(o.Lanes) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %s  %s  %s", pad(host, hosts), pad(laneWord(o.Lanes[host]), 13), shortPath(o.Systems[host])), " ") + "\n")
	}
	if len(o.Data) > 0 {
		b.WriteString("Data:\n")
		for _, d := range o.Data {
			b.WriteString("  " + Clean(d) + "\n")
		}
	}
	if len(o.Remains) > 0 {
		b.WriteString("What remains to be done by a person:\n")
		for _, r := range o.Remains {
			b.WriteString("  " + Clean(r) + "\n")
		}
	}
	if e.Report != "" {
		fmt.Fprintf(&b, "Report: %s\n", e.Report)
	}
	s.hints(&b, next(o, e))
	s.Notef("%s", b.String())
}

func (s *Streams) verdict(o *phases.Outcome, e Ended) string {
	took := " (" + Duration(e.Took) + ")"
	switch o.Exit {
	case phases.ExitOK:
		if e.Undoes != "" {
			return s.style(green, "Undone") + ": run " + e.Undoes + " is rolled back and verified" + took + "."
		}
		if e.DataOnly {
			return s.style(green, "Done") + ": the data is restored, and the host verified" + took + "."
		}
		return s.style(green, "Done") + ": run " + e.Run + " is committed" + took + "."
	case phases.ExitWaiting:
		return s.style(yellow, "Waiting") + ": run " + e.Run + " is saved" + took + "."
	case phases.ExitInterrupted:
		return s.style(yellow, "Interrupted") + ": run " + e.Run + " is saved, the hosts are as listed" + took + "."
	case phases.ExitFenced:
		return s.style(yellow, "Fenced out") + ": another process has taken over run " + e.Run + took + "."
	case phases.ExitRefused:
		return s.style(yellow, "Refused") + ": nothing was changed on any host" + took + "."
	case phases.ExitRolledBack:
		return s.style(yellow, "Rolled back") + ": every host is what it was before, verified" + took + ".\nSnapshots and logs are kept."
	case phases.ExitByHost:
		return s.style(yellow, "Rolled back by the host's guard") + ": every host is as before, verified" + took + "."
	case phases.ExitAborted:
		return s.style(yellow, "Stopped") + " by the operator: every host is what it was before" + took + "."
	case phases.ExitMixed:
		return s.style(red, "Mixed") + ": some hosts are committed, others are what they were before" + took + "."
	case phases.ExitUnhealthy:
		return s.style(yellow, "Committed, but not healthy") + took + "."
	case phases.ExitStuck:
		return s.style(red, "Stuck") + ": a restore failed, a person is needed" + took + "."
	case phases.ExitUnknown:
		return s.style(red, "Unknown") + ": a host is out of reach" + took + "."
	}
	for _, l := range o.Lanes { // what is not known to be true is not said
		if l != state.Untouched {
			return s.style(red, "Failed") + ": the hosts are as listed" + took + "."
		}
	}
	return s.style(red, "Failed") + ": nothing was changed on any host" + took + "."
}

func laneWord(l state.Status) string {
	switch l {
	case state.Restored:
		return "old, verified"
	case state.Committed:
		return "committed"
	case state.OutOfReach:
		return "out of reach"
	}
	return string(l)
}

// next is what to type after a run.
func next(o *phases.Outcome, e Ended) []string {
	var hints []string
	if o.Failure != nil {
		hints = append(hints, o.Failure.Hint...)
	}
	return append(hints, after(o, e)...)
}

// after is what to type after a run that ended so, whatever failed in it.
func after(o *phases.Outcome, e Ended) []string {
	if e.DataOnly {
		return afterData(o, e)
	}
	switch o.Exit {
	case phases.ExitOK:
		if e.Undoes != "" {
			return []string{"deployer show " + e.Run}
		}
		return []string{"deployer rollback " + e.Run + "   # undo it", "deployer show " + e.Run}
	case phases.ExitUnhealthy:
		return []string{"deployer rollback " + e.Run, "deployer show " + e.Run}
	case phases.ExitStuck:
		return []string{"deployer show " + e.Run, "deployer rollback " + e.Run + "   # once the cause is mended"}
	case phases.ExitUnknown:
		return []string{"deployer rollback " + e.Run + "   # when the host answers again", "deployer status"}
	case phases.ExitFenced:
		return []string{"deployer status"}
	case phases.ExitWaiting, phases.ExitInterrupted:
		return []string{"deployer resume " + e.Run + "   # go on", "deployer abort " + e.Run + "   # go back"}
	}
	return []string{"deployer show " + e.Run, "deployer logs " + e.Run}
}

// afterData is after for a restore of data: no rollback undoes it, and there is
// no way but to its end.
func afterData(o *phases.Outcome, e Ended) (hints []string) {
	switch o.Exit {
	case phases.ExitOK:
		if e.Undo != "" {
			hints = append(hints, e.Undo+"   # undo it")
		}
	case phases.ExitStuck:
		hints = append(hints, "deployer resume "+e.Run+"   # once the cause is mended")
	case phases.ExitUnknown:
		hints = append(hints, "deployer resume "+e.Run+"   # when the host answers again")
	case phases.ExitFenced:
		return []string{"deployer status"}
	}
	return append(hints, "deployer show "+e.Run)
}

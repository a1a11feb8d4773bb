package agent

import (
	"fmt"
	"slices"
	"strings"
)

// Exit is how a switch-to-configuration ended, with what is needed to judge it.
type Exit struct {
	Code    int
	Signal  string   // it did not exit by itself
	Output  string   // what it printed
	Before  []string // units that were failing before it started
	After   []string // units that are failing now
	Allow   []string // units that may fail
	Current bool     // /run/current-system is the wanted one now
}

// Verdict is what an exit means. Exactly one of the first five is true.
type Verdict struct {
	OK      bool     // done; Message is a warning, if there is one
	Retry   bool     // somebody else held the lock: nothing was changed
	Reboot  bool     // this change cannot be made live
	Fail    bool     // it did not work
	Unknown bool     // it may have been done, in part or as a whole
	Failed  []string // units that fail now and did not before
	Message string
}

// Judge is the table of switch-to-configuration's exit codes: 0, 1, 2, 4, 11,
// 100 and 101 are of nixpkgs' switch-to-configuration-ng, 3 of the Perl one
// before it, 255 is ssh's. No code stands alone: the new system's own program
// gives it, so the units and the running system are looked at too.
func Judge(e Exit) Verdict {
	fresh := e.fresh()
	v := Verdict{Failed: fresh}
	failed := len(fresh) > 0
	switch {
	case e.Signal != "":
		v.Unknown, v.Message = true, "ended by signal "+e.Signal
	case e.locked():
		v.Retry, v.Message = true, "another switch holds the lock"
	case e.inhibited():
		v.Reboot, v.Message = true, "refuses to switch live: "+e.inhibitors()
	case e.Code == 100:
		v.Reboot, v.Message = true, "the new init cannot be switched to live; the boot loader may be changed already"
	case failed && slices.Contains([]int{0, 4, 101}, e.Code):
		v.Fail, v.Message = true, "units fail now: "+strings.Join(fresh, ", ")
	case e.Code == 0:
		v.OK = true
	case e.Code == 4:
		v.OK, v.Message = true, "exit 4, but no unit fails that did not before"
	case e.Code == 101 && e.Current:
		v.OK, v.Message = true, "it crashed (101), but the system is the wanted one and no unit fails that did not before"
	case e.Code == 101 || e.Code == 255:
		v.Unknown, v.Message = true, fmt.Sprintf("exit %d: it did not say what it had done", e.Code)
	case e.Code == 1:
		v.Fail, v.Message = true, "refused or failed before units were touched (1); the boot loader may be changed"
	case e.Code == 2:
		v.Fail, v.Message = true, "the activation script failed (2)"
	case e.Code == 3:
		v.Fail, v.Message = true, "systemd could not reload (3)"
	default:
		v.Fail, v.Message = true, fmt.Sprintf("exit %d", e.Code)
	}
	return v
}

func (e Exit) locked() bool {
	return e.Code == 11 || e.Code == 1 && strings.Contains(e.Output, "Could not acquire lock")
}

// The texts of nixpkgs' pre-switch check switchInhibitors.
func (e Exit) inhibited() bool {
	return e.Code == 1 && (strings.Contains(e.Output, "switchInhibitors") ||
		strings.Contains(e.Output, "changes to critical components of the system"))
}

// inhibitors are the lines that tell what changed: "dbus-implementation : dbus -> broker".
func (e Exit) inhibitors() string {
	var lines []string
	for line := range strings.Lines(e.Output) {
		if strings.Contains(line, " -> ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if lines == nil {
		return "critical components change"
	}
	return strings.Join(lines, "; ")
}

// fresh is what fails now and neither did before nor may. Units that the
// program itself names count too: one may be between two starts at this moment.
func (e Exit) fresh() []string {
	var list []string
	for _, u := range append(slices.Clone(e.After), e.named()...) {
		if !slices.Contains(e.Before, u) && !slices.Contains(e.Allow, u) && !slices.Contains(list, u) && !own(u) {
			list = append(list, u)
		}
	}
	slices.Sort(list)
	return list
}

func (e Exit) named() []string {
	const said = "warning: the following units failed: "
	var list []string
	for line := range strings.Lines(e.Output) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), said); ok {
			list = append(list, strings.Split(rest, ", ")...)
		}
	}
	return list
}

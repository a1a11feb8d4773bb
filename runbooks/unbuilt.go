package runbooks

import (
	"fmt"
	"maps"
	"slices"
)

// Unbuilt is what a runbook asks for and this version knows but has not built,
// each refused by its name. A run that ignored it would promise what nobody
// keeps, so it is asked before every run, and never when a file is only read.
func (p *Project) Unbuilt(rb *Runbook) []Mistake {
	u := &unbuilt{src: rb.src}
	for _, ph := range rb.Phases {
		u.phase(ph)
	}
	u.src = p.src
	if lastSwitch(rb) >= 0 && p.Snapshots != nil {
		u.subvolumes(p.Snapshots)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Notify)) {
		if n := p.Notify[name]; n.Kind != "webhook" && n.Kind != "file" {
			u.refuse(n, "kind", n.Pos, "notifications of kind `%s`", n.Kind)
		}
	}
	return u.list
}

type unbuilt struct {
	src  *source
	list []Mistake
}

// refuse says that something is not built, at the place of a field.
func (u *unbuilt) refuse(owner any, key string, pos Pos, format string, args ...any) {
	if u.src != nil && u.src.has(owner, key) {
		pos = u.src.where(owner, key)
	}
	message := fmt.Sprintf(format, args...) + " is not built in this version"
	u.list = append(u.list, Mistake{Pos: pos, Message: message, Snippet: u.src.snippet(pos)})
}

func (u *unbuilt) phase(ph *Phase) {
	switch {
	case ph.Edit != nil || ph.Migrate != nil:
		u.refuse(ph, "", ph.Pos, "the phase `%s`", ph.Kind)
	case ph.Gate != nil:
		for _, item := range ph.Gate.Items {
			u.check(item.Check)
		}
	case ph.Staging != nil:
		u.staging(ph)
	case ph.Window != nil:
		u.window(ph)
	case ph.Switch != nil && ph.Switch.Reboot == "auto":
		u.refuse(ph.Switch, "reboot", ph.Pos, "rebooting by itself (reboot: auto)")
	case ph.Validate != nil:
		u.checks(ph.Validate.Checks)
	case ph.Monitor != nil:
		for _, r := range ph.Monitor.Rules {
			u.check(r.Check)
		}
	}
}

func (u *unbuilt) staging(ph *Phase) {
	if e := ph.Staging.Evidence; e != nil && e.Require != "" {
		u.refuse(e, "require", ph.Pos, "comparing with staging (require: %s)", e.Require)
	}
	u.checks(ph.Staging.Checks)
}

func (u *unbuilt) window(ph *Phase) {
	if ph.Window.Reserve != "" {
		u.refuse(ph.Window, "reserve", ph.Pos, "reserving time in a window (reserve: %s)", ph.Window.Reserve)
	}
	if len(ph.Window.Announce) > 0 {
		u.refuse(ph.Window, "announce", ph.Pos, "announcing a window (announce)")
	}
}

func (u *unbuilt) checks(list []*Check) {
	for _, c := range list {
		u.check(c)
	}
}

func (u *unbuilt) check(c *Check) {
	if c != nil && c.Kind == "unit" && c.NewerThan > 0 {
		u.refuse(c, "snapshot_newer_than", c.Pos, "looking for the snapshot that a unit took (snapshot_newer_than)")
	}
	if c == nil || !slices.Contains([]string{"backup", "reboot", "fio", "metric"}, c.Kind) {
		return
	}
	named := ""
	if c.Name != c.Kind && c.Name != c.Kind+" "+c.subject() {
		named = " (`" + c.Name + "`)"
	}
	u.refuse(c, c.Kind, c.Pos, "a check of `%s`%s", c.Kind, named)
}

func (u *unbuilt) subvolumes(snaps *Snapshots) {
	for _, path := range slices.Sorted(maps.Keys(snaps.Subvolumes)) {
		switch v := snaps.Subvolumes[path]; {
		case v.OnRollback == "restore":
			u.refuse(v, "on_rollback", v.Pos, "restoring data (on_rollback: restore) of `%s`", path)
		case v.OnRollback == "ask":
			u.refuse(v, "on_rollback", v.Pos, "asking what to do with data (on_rollback: ask) of `%s`", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(snaps.Subvolumes)) {
		if v := snaps.Subvolumes[path]; len(v.Pause) > 0 {
			u.refuse(v, "pause", v.Pos, "pausing units of `%s` (pause)", path)
		}
	}
}

package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// Status is where things stand.
type Status struct {
	Last  *Row         `json:"last_run"`
	Hosts []HostStatus `json:"hosts"`
}

// HostStatus is one host as it is now.
type HostStatus struct {
	Name    string       `json:"name"`
	Address string       `json:"address"`
	Facts   *agent.Facts `json:"facts,omitempty"`
	Problem string       `json:"problem,omitempty"`
}

// SortHosts puts hosts in the order of their names.
func SortHosts(h []HostStatus) {
	slices.SortFunc(h, func(a, b HostStatus) int { return strings.Compare(a.Name, b.Name) })
}

// Status prints where things stand.
func (s *Streams) Status(st Status, zone *time.Location) {
	var b strings.Builder
	for _, h := range st.Hosts {
		s.hostStatus(&b, h)
	}
	if st.Last == nil {
		b.WriteString("No runs yet. Start with: deployer run production --dry-run\n")
	} else {
		r := st.Last
		fmt.Fprintf(&b, "last run  %s  %s  %s  %s by %s\n", r.ID, r.Runbook, s.style(bold, resultWord(*r)), r.Started.In(zone).Format("2006-01-02 15:04 MST"), r.By)
		if r.Now == state.Interrupted {
			fmt.Fprintf(&b, "  its process is gone; what it changed can be undone: deployer rollback %s\n", r.ID)
		}
		if r.Damage != "" {
			fmt.Fprintf(&b, "  its journal is damaged: %s\n", r.Damage)
		}
	}
	s.Printf("%s", b.String())
}

func (s *Streams) hostStatus(b *strings.Builder, h HostStatus) {
	if h.Problem != "" {
		fmt.Fprintf(b, "%s %s %s\n", s.style(bold, pad(h.Name, 14)), s.style(red, "out of reach"), h.Problem)
		return
	}
	f := h.Facts
	fmt.Fprintf(b, "%s generation %d  %s\n", s.style(bold, pad(h.Name, 14)), f.Profile.Generation, phases.ShortPath(f.System))
	note := func(format string, args ...any) {
		fmt.Fprintf(b, "%s%s %s\n", pad("", 15), s.style(yellow, "!"), fmt.Sprintf(format, args...))
	}
	if f.Profile.System != f.System {
		note("the profile is %s", phases.ShortPath(f.Profile.System))
	}
	if f.Boot.System != "" && f.Boot.System != f.System {
		note("the boot default is %s", phases.ShortPath(f.Boot.System))
	}
	if len(f.Failed) > 0 {
		note("failed units: %s", strings.Join(f.Failed, ", "))
	}
	if f.Holder != nil {
		note("locked by run %s (%s) since %s", f.Holder.Run, f.Holder.Owner, f.Holder.Since.Format(time.RFC3339))
	}
	if f.OpenRun != "" {
		note("run %s was never finished here: deployer rollback %s", f.OpenRun, f.OpenRun)
	}
}

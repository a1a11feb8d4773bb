package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// Status is where things stand.
type Status struct {
	Last  *Row         `json:"last_run"`
	Open  []Row        `json:"open_runs"` // others that are at work, or were never settled
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
	var hosts []string
	for _, h := range st.Hosts {
		hosts = append(hosts, h.Name)
	}
	for _, h := range st.Hosts {
		s.hostStatus(&b, h, max(widest(hosts), 8)+2)
	}
	if st.Last == nil {
		b.WriteString("No runs yet. Start with: deployer run production --dry-run\n")
	} else {
		for _, r := range st.Open {
			s.runStatus(&b, "open run  ", r, zone)
		}
		s.runStatus(&b, "last run  ", *st.Last, zone)
	}
	s.Printf("%s", b.String())
}

func (s *Streams) runStatus(b *strings.Builder, lead string, r Row, zone *time.Location) {
	fmt.Fprintf(b, "%s%s  %s  %s\n", lead, r.ID, r.what(), s.style(bold, resultWord(r)))
	fmt.Fprintf(b, "          %s by %s\n", r.Started.In(zone).Format("2006-01-02 15:04 MST"), fit(Clean(r.By), 40))
	if r.Now == state.Waiting {
		b.WriteString(s.wrap("          ", "waits: "+Clean(r.Waits)))
	}
	if (r.Now == state.Interrupted || r.Now == state.Waiting) && r.Undone == "" {
		fmt.Fprintf(b, "          go on: deployer resume %s", r.ID)
		if !r.DataOnly() {
			fmt.Fprintf(b, "; go back: deployer abort %s", r.ID)
		}
		b.WriteString("\n")
	}
	if r.Damage != "" {
		b.WriteString(s.wrap("          ", "its journal is damaged: "+r.Damage))
	}
}

func (s *Streams) hostStatus(b *strings.Builder, h HostStatus, name int) {
	lead := s.style(bold, pad(h.Name, name))
	if h.Problem != "" {
		b.WriteString(s.wrap(lead+s.style(red, "out of reach")+"  ", strings.TrimPrefix(h.Problem, "cannot reach "+h.Name+" ")))
		return
	}
	f := h.Facts
	if f.System == "" {
		b.WriteString(s.wrap(lead, "no NixOS system (the host is "+f.OS+")"))
	} else {
		fmt.Fprintf(b, "%sgeneration %d  %s\n", lead, f.Profile.Generation, shortPath(f.System))
	}
	note := func(format string, args ...any) {
		b.WriteString(s.wrap(pad("", name)+s.style(yellow, "!")+" ", fmt.Sprintf(format, args...)))
	}
	if f.Profile.System != f.System {
		note("the profile is %s", shortPath(f.Profile.System))
	}
	if f.Boot.System != "" && f.Boot.System != f.System {
		note("the boot default is %s", shortPath(f.Boot.System))
	}
	if len(f.Failed) > 0 {
		note("failed units: %s", strings.Join(f.Failed, ", "))
	}
	if f.Holder != nil {
		note("locked by run %s (%s) since %s", f.Holder.Run, f.Holder.Owner, f.Holder.Since.Format(time.RFC3339))
	}
	if f.OpenRun != "" {
		note("left unfinished: deployer resume %[1]s, or deployer abort %[1]s; if that is over, and was being undone: deployer rollback %[1]s", f.OpenRun)
	}
}

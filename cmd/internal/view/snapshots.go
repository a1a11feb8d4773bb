package view

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

// SnapshotsOf is what a host has.
type SnapshotsOf struct {
	Host      string           `json:"host"`
	Snapshots []agent.Snapshot `json:"snapshots"`
}

// Pruned is what retention says of a host's snapshots, or did.
type Pruned struct {
	Host      string        `json:"host"`
	Snapshots []phases.Kept `json:"snapshots"`
}

// Snapshots lists them host by host. The begin of the UUID names one to other
// commands; JSON has the paths.
func (s *Streams) Snapshots(rows []SnapshotsOf, zone *time.Location) {
	for i, row := range rows {
		s.host(i, row.Host, len(row.Snapshots))
		table := [][]string{{"SNAPSHOT", "TAKEN " + time.Now().In(zone).Format("MST"), "OF", "BY"}}
		for _, snap := range row.Snapshots {
			table = append(table, []string{snap.UUID[:8], taken(snap, zone), Clean(cmp.Or(snap.Source, snap.Origin)), by(snap)})
		}
		if len(table) > 1 {
			s.table(table)
		}
	}
}

func (s *Streams) host(i int, name string, count int) {
	if i > 0 {
		s.Printf("\n")
	}
	s.Printf("%s  %d snapshots\n", s.style(bold, name), count)
}

func taken(s agent.Snapshot, zone *time.Location) string {
	return s.Created.In(zone).Format("2006-01-02 15:04:05")
}

// by is who made a snapshot: a run, or another tool.
func by(s agent.Snapshot) string {
	switch {
	case s.Replaced:
		return "replaced in " + s.Run
	case s.Run != "":
		return "run " + s.Run
	}
	return cmp.Or(s.Maker, "somebody")
}

// Back says what restores would do to files.
func (s *Streams) Back(host string, list []Data) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.style(bold, host))
	for _, d := range list {
		fmt.Fprintf(&b, "  %s goes back to %s (%s)\n", Clean(cmp.Or(d.Snapshot.Source, d.Snapshot.Origin)), d.Snapshot.UUID[:8], by(d.Snapshot))
		if d.Reboot != "" {
			b.WriteString(s.wrap("    "+s.sym("↩", 2)+" ", "reboot into "+shortPath(d.Reboot)+": the host goes down for it"))
		}
		b.WriteString(s.Preview(d))
	}
	s.Printf("%s", b.String())
}

// Prune says of each snapshot why it is kept or goes, and what became of it.
func (s *Streams) Prune(rows []Pruned) {
	goes := 0
	for i, row := range rows {
		s.host(i, row.Host, len(row.Snapshots))
		table := [][]string{{"", "SNAPSHOT", "OF", "BY", "BECAUSE"}}
		for _, k := range row.Snapshots {
			if !k.Keep && k.State != "refused" {
				goes++
			}
			table = append(table, []string{fate(k), k.UUID[:8], Clean(cmp.Or(k.Source, k.Origin)), by(k.Snapshot), Clean(k.Why)})
		}
		if len(table) > 1 {
			s.table(table)
		}
	}
	if goes == 0 {
		s.Printf("Nothing goes.\n")
	}
}

func fate(k phases.Kept) string {
	if k.Keep {
		return "kept"
	}
	word := map[string]string{"freed": "deleted", "later": "freed later", "gone": "was gone", "refused": "stays"}[k.State]
	return cmp.Or(word, "goes")
}

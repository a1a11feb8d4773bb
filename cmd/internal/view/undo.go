package view

import (
	"fmt"
	"strings"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

// Undo is what a rollback would do to one host.
type Undo struct {
	Host       string            `json:"host"`
	Now        agent.Facts       `json:"now"`
	Before     agent.Facts       `json:"before"`
	Operations []agent.Operation `json:"operations"`
	Snapshots  []agent.Snapshot  `json:"snapshots,omitempty"`
}

// Undo prints what a rollback would do.
func (s *Streams) Undo(run string, rows []Undo) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.style(bold, "Roll back run "+run))
	for _, u := range rows {
		fmt.Fprintf(&b, "\n%s\n", s.style(bold, u.Host))
		fmt.Fprintf(&b, "  now   generation %d  %s\n", u.Now.Profile.Generation, shortPath(u.Now.System))
		fmt.Fprintf(&b, "  to    generation %d  %s\n", u.Before.Profile.Generation, shortPath(u.Before.System))
		for _, op := range u.Operations {
			b.WriteString(s.wrap("  "+s.sym("↩", 2)+" ", brief(phases.Words(op))))
		}
		if len(u.Snapshots) > 0 {
			fmt.Fprintf(&b, "  data stays as it is; read-only snapshots from before the run are kept:\n")
			var sources []string
			for _, sn := range u.Snapshots {
				sources = append(sources, sn.Source)
			}
			for _, sn := range u.Snapshots {
				fmt.Fprintf(&b, "    %s  %s\n", pad(sn.Source, widest(sources)), sn.Path)
			}
		} else {
			b.WriteString("  data stays as it is; no snapshot was taken\n")
		}
	}
	b.WriteString("\n")
	s.Printf("%s", b.String())
}

// Pause takes the live line away, for a prompt or a result.
func (h *Human) Pause() {
	if h.live != nil {
		h.live.pause()
	}
}

package view

import (
	"cmp"
	"fmt"
	"path"
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
	Data       []Data            `json:"data,omitempty"`
	Room       []string          `json:"room,omitempty"` // what there is too little of
}

// Data is what a rollback would do to one subvolume.
type Data struct {
	Snapshot agent.Snapshot `json:"snapshot"`
	Do       string         `json:"do"` // keep, restore, ask
	Preview  *agent.Preview `json:"preview,omitempty"`
	Problem  string         `json:"problem,omitempty"` // why there is no preview
	Reboot   string         `json:"reboot,omitempty"`  // the system that the host is rebooted into for it
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
		for _, f := range u.Room {
			b.WriteString(s.wrap("  "+s.style(yellow, "space")+" ", f+"; deployer snapshots prune"))
		}
		if len(u.Data) == 0 {
			b.WriteString("  data stays as it is; no snapshot was taken\n")
		} else {
			s.data(&b, u.Data)
		}
	}
	b.WriteString("\n")
	s.Printf("%s", b.String())
}

func (s *Streams) data(b *strings.Builder, list []Data) {
	b.WriteString("  data, and the read-only snapshots from before the run (they are kept):\n")
	var sources []string
	for _, d := range list {
		sources = append(sources, d.Snapshot.Source)
	}
	does := map[string]string{phases.Keep: "stays as it is", phases.Restore: "goes back", phases.Ask: "stays or goes back: --data keep, --data restore"}
	for _, d := range list {
		fmt.Fprintf(b, "    %s  %s\n", pad(Clean(d.Snapshot.Source), widest(sources)), does[d.Do])
		fmt.Fprintf(b, "      %s\n", Clean(d.Snapshot.Path))
		b.WriteString(s.Preview(d))
	}
}

const backMost = 10 // files of a kind that are named without -v

// Preview says what a restore of a subvolume would do to its files.
func (s *Streams) Preview(d Data) string {
	if d.Problem != "" {
		return "      no preview: " + Clean(d.Problem) + "\n"
	}
	if d.Preview == nil {
		return ""
	}
	var b strings.Builder
	p, n := d.Preview, d.Preview.Counts
	fmt.Fprintf(&b, "      %d lost, %d changed back, %d come back, %d moved back; %s written since\n", n.Lost, n.Reverted, n.Coming, n.Moved, Bytes(int64(p.Bytes)))
	if p.Pinned > 0 {
		fmt.Fprintf(&b, "      at most %s are in the snapshot alone\n", Bytes(int64(p.Pinned)))
	}
	at := func(file string) string { return Clean(path.Join(cmp.Or(d.Snapshot.Source, "/"), file)) }
	var moved []string
	for _, m := range p.Moved {
		moved = append(moved, at(m.Now)+" → "+at(m.Then))
	}
	for _, k := range []struct {
		word  string
		all   int
		files []string
	}{{"lost", n.Lost, each(p.Lost, at)}, {"changed back", n.Reverted, each(p.Reverted, at)}, {"comes back", n.Coming, each(p.Coming, at)}, {"moved back", n.Moved, moved}} {
		named, more := k.files, ""
		if len(named) > backMost && !s.Verbose {
			named, more = named[:backMost], " (-v names up to 1000)"
		}
		for _, f := range named {
			fmt.Fprintf(&b, "      %s  %s\n", pad(k.word, 12), f)
		}
		if left := k.all - len(named); left > 0 {
			fmt.Fprintf(&b, "      %s  … and %d more%s\n", pad("", 12), left, more)
		}
	}
	if p.Temporary != "" {
		b.WriteString("      (a temporary snapshot was taken for this, and deleted)\n")
	}
	return b.String()
}

func each(list []string, do func(string) string) (out []string) {
	for _, x := range list {
		out = append(out, do(x))
	}
	return out
}

// Pause takes the live line away, for a prompt or a result.
func (h *Human) Pause() {
	if h.live != nil {
		h.live.pause()
	}
}

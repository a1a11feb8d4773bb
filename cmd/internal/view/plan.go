package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/nix"
)

// Plan prints a plan for people. full lists every package and all of the undo.
func (s *Streams) Plan(p *phases.Plan, full bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  ·  runbook %s", s.style(bold, "Plan "+short(p.Digest)), p.Runbook)
	if p.Revision != "" {
		fmt.Fprintf(&b, "  ·  revision %s", short(p.Revision))
	}
	b.WriteString("\n")
	for _, name := range keys(p.Changed) {
		fmt.Fprintf(&b, "  with %s = %s (the runbook says %s)\n", name, p.Vars[name], p.Changed[name])
	}
	steps := full || !p.Nothing
	if steps {
		fmt.Fprintf(&b, "  %s\n", s.style(dim, "+ will do   – nothing to do   ? known when it runs   ↩ can be undone"))
	}
	for _, h := range p.Hosts {
		s.planHost(&b, h, full)
	}
	if steps {
		b.WriteString("\n")
		names, hosts := columns(p)
		for i, ph := range p.Phases {
			s.planPhase(&b, i+1, ph, names, hosts, full)
		}
	}
	b.WriteString("\n" + s.wrap("", tally(p)))
	s.Printf("%s", b.String())
}

func (s *Streams) planHost(b *strings.Builder, h phases.PlanHost, full bool) {
	fmt.Fprintf(b, "\n%s  %s@%s  ·  nixosConfigurations.%s\n", s.style(bold, h.Name), h.User, h.Address, h.System)
	if h.Unchanged {
		fmt.Fprintf(b, "  – runs and boots %s already\n", shortPath(h.To))
		return
	}
	fmt.Fprintf(b, "  from  generation %d  %s\n", h.From.Profile.Generation, shortPath(h.From.System))
	if h.To == "" {
		b.WriteString("  to    ? known when it runs\n")
	} else {
		fmt.Fprintf(b, "  to    %s\n", shortPath(h.To))
	}
	s.planDiff(b, h.Diff, full)
	s.planUnits(b, h.Units)
	if h.Reboot != "" {
		b.WriteString(s.wrap("  "+s.style(yellow, "!")+" ", h.Reboot+" differ from what was booted: activated live, a reboot will be pending"))
	}
	for _, n := range h.Notes {
		b.WriteString(s.wrap("  "+s.style(yellow, "!")+" ", n))
	}
}

// planItems is how many packages are listed without --diff.
const planItems = 8

func (s *Streams) planDiff(b *strings.Builder, d *nix.Diff, full bool) {
	if d == nil {
		b.WriteString("  ? the closure difference is known when it runs\n")
		return
	}
	sign := "+"
	if d.Bytes <= 0 {
		sign = ""
	}
	fmt.Fprintf(b, "  closure  %s%s, %d new paths, %s to copy\n", sign, Bytes(d.Bytes), d.Paths, Bytes(d.Missing))
	for i, item := range d.Items {
		if i == planItems && !full {
			fmt.Fprintf(b, "    %d more (--diff lists them)\n", len(d.Items)-i)
			break
		}
		b.WriteString(s.wrap("    ", DiffLine(item)))
	}
}

// DiffLine shows one package in the notation of `nix store diff-closures`.
func DiffLine(i nix.Item) string {
	var parts []string
	if !slices.Equal(i.Old, i.New) {
		parts = append(parts, versions(i.Old)+" → "+versions(i.New))
	}
	if i.Bytes >= 8<<10 {
		parts = append(parts, "+"+Bytes(i.Bytes))
	} else if i.Bytes <= -8<<10 {
		parts = append(parts, Bytes(i.Bytes))
	}
	return i.Name + ": " + strings.Join(parts, ", ")
}

func versions(v []string) string {
	if len(v) == 0 {
		return "∅"
	}
	out := make([]string, len(v))
	for i, x := range v {
		if out[i] = x; x == "" {
			out[i] = "ε"
		}
	}
	return strings.Join(out, ", ")
}

func (s *Streams) planUnits(b *strings.Builder, u nix.UnitDiff) {
	if u.Unknown {
		b.WriteString("  ? unit changes are known when it runs\n")
		return
	}
	var parts []string
	for _, p := range []struct {
		verb  string
		units []string
	}{{"stop", u.Stop}, {"start", u.Start}, {"restart", u.Restart}, {"reload", u.Reload}, {"leave running", u.Keep}} {
		if len(p.units) > 0 {
			parts = append(parts, p.verb+" "+strings.Join(p.units, ", "))
		}
	}
	if len(parts) > 0 {
		b.WriteString(s.wrap("  units    ", strings.Join(parts, " · ")+" (may be incomplete)"))
	}
}

func (s *Streams) planPhase(b *strings.Builder, n int, ph phases.PlanPhase, names, hosts int, full bool) {
	fmt.Fprintf(b, "%2d %s\n", n, s.style(bold, ph.Name))
	for _, st := range ph.Steps {
		sym := "+"
		switch {
		case st.Nothing:
			sym = "–"
		case st.Unknown:
			sym = "?"
		}
		undo := " "
		if len(st.Undo) > 0 {
			undo = "↩"
		}
		lead := fmt.Sprintf("   %s %s %s %s  ", sym, s.sym(undo, 2), pad(fit(st.Name, names), names), pad(st.Host, hosts))
		b.WriteString(s.wrap(lead, brief(st.Text)))
		if full {
			for _, d := range st.Detail {
				b.WriteString(s.wrap("         ", d))
			}
			for _, op := range st.Undo {
				b.WriteString(s.wrap("         "+s.style(dim, "undo:")+" ", brief(phases.Words(op))))
			}
		}
	}
}

// columns are the widths of step and host names.
func columns(p *phases.Plan) (names, hosts int) {
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			names, hosts = min(max(names, width(st.Name)), 28), max(hosts, width(st.Host))
		}
	}
	return names, hosts
}

func tally(p *phases.Plan) string {
	steps, undo, change := 0, 0, 0
	for _, ph := range p.Phases {
		for _, s := range ph.Steps {
			steps++
			if len(s.Undo) > 0 {
				undo++
			}
		}
	}
	for _, h := range p.Hosts {
		if !h.Unchanged {
			change++
		}
	}
	if p.Nothing {
		return "All hosts run and boot this revision already: nothing to do."
	}
	return fmt.Sprintf("%d of %d hosts to change; %d steps, %d of them with an undo. If one fails after the first change, every host goes back.", change, len(p.Hosts), steps, undo)
}

func short(digest string) string {
	if len(digest) > 12 && !strings.Contains(digest, "-") {
		return digest[:12]
	}
	if rev, dirty, ok := strings.Cut(digest, "-"); ok && len(rev) > 12 {
		return rev[:12] + "-" + dirty
	}
	return digest
}

func keys[V any](m map[string]V) []string {
	var k []string
	for x := range m {
		k = append(k, x)
	}
	slices.Sort(k)
	return k
}

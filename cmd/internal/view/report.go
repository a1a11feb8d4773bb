package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases"
)

// Report renders a run as Markdown, from its journal's fold and its plan. It is
// what goes into a ticket: no remote output, no secrets.
func Report(r Row, p *phases.Plan, zone *time.Location) string {
	var b strings.Builder
	title := "Deployment"
	if r.Type == "rollback" {
		title = "Rollback"
	}
	fmt.Fprintf(&b, "# %s %s: %s\n\n", title, r.ID, resultWord(r))
	fmt.Fprintf(&b, "| | |\n|---|---|\n| runbook | %s |\n", r.Runbook)
	if r.Undoes != "" {
		fmt.Fprintf(&b, "| undoes | run %s |\n", r.Undoes)
	}
	fmt.Fprintf(&b, "| started | %s |\n| by | %s |\n", r.Started.In(zone).Format("2006-01-02 15:04:05 MST"), cell(r.By))
	if r.Reason != "" {
		fmt.Fprintf(&b, "| reason | %s |\n", cell(r.Reason))
	}
	if r.Revision != "" {
		fmt.Fprintf(&b, "| revision | `%s` |\n", r.Revision)
	}
	if r.Exit != nil {
		fmt.Fprintf(&b, "| exit code | %d |\n| took | %s |\n", *r.Exit, took(r.Run))
		if *r.Exit != 0 && r.Waits != "" {
			fmt.Fprintf(&b, "| cause | %s |\n", cell(r.Waits))
		}
	}
	for _, k := range keys(r.Vars) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k, cell(r.Vars[k]))
	}
	reportHosts(&b, r, p)
	reportSteps(&b, r, zone)
	reportUndo(&b, r, p)
	return b.String()
}

func reportHosts(b *strings.Builder, r Row, p *phases.Plan) {
	b.WriteString("\n## Hosts\n\n| host | now | system | before |\n|---|---|---|---|\n")
	before := map[string]string{}
	if p != nil {
		for _, h := range p.Hosts {
			before[h.Name] = fmt.Sprintf("generation %d, `%s`", h.From.Profile.Generation, shortPath(h.From.System))
		}
	}
	for _, h := range keys(r.Lanes) {
		fmt.Fprintf(b, "| %s | %s | `%s` | %s |\n", h, laneWord(r.Lanes[h].Status), shortPath(r.Lanes[h].System), before[h])
	}
	if p == nil {
		return
	}
	for _, h := range p.Hosts {
		if h.Diff == nil || len(h.Diff.Items) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n<details><summary>%s: packages that differ: %d (%s)</summary>\n\n```\n", h.Name, len(h.Diff.Items), Bytes(h.Diff.Bytes))
		for _, i := range h.Diff.Items {
			b.WriteString(DiffLine(i) + "\n")
		}
		b.WriteString("```\n</details>\n")
	}
}

func reportSteps(b *strings.Builder, r Row, zone *time.Location) {
	b.WriteString("\n## Steps\n\n| phase | step | host | result | took | |\n|---|---|---|---|---|---|\n")
	for _, ph := range r.Phases {
		for _, st := range ph.Steps {
			name, _, _ := strings.Cut(st.Key, "@")
			_, name, _ = strings.Cut(name, "/")
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", ph.Name, cell(name), st.Host, st.Status, Duration(st.Elapsed), cell(brief(firstLine(said(st.Text, st.Reason)))))
		}
	}
	if len(r.events()) > 0 {
		b.WriteString("\n## Events\n\n")
	}
	for _, d := range r.events() {
		fmt.Fprintf(b, "- %s %s\n", d.Time.In(zone).Format(time.RFC3339), cell(tells(d)))
	}
}

func reportUndo(b *strings.Builder, r Row, p *phases.Plan) {
	if p == nil || r.Exit == nil || *r.Exit != 0 {
		return
	}
	fmt.Fprintf(b, "\n## To undo it\n\n```\ndeployer rollback %s\n```\n", r.ID)
}

func cell(t string) string {
	return strings.NewReplacer("|", "\\|").Replace(Clean(strings.ReplaceAll(t, "\n", " ")))
}

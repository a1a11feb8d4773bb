package simulation

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

// What must not happen on a host, whatever was killed, seen where it happens.

// told remembers which records the host said that it has.
func (m *machine) told(r agent.Records) {
	if r.Run != runID { // a rollback's
		return
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	for _, line := range r.Lines {
		m.keeps = append(m.keeps, string(line))
	}
}

// remembers looks for what the host said that it has, and has not.
func (m *machine) remembers() {
	m.disk.mu.Lock()
	kept := ""
	if n := m.disk.find("runs/" + runID + "/journal.jsonl"); n != nil {
		kept = string(n.data)
	}
	m.disk.mu.Unlock()
	for _, line := range m.keeps {
		if !strings.Contains(kept, line) {
			m.w.fail("%s has forgotten a record: %s", m.name, line)
			break
		}
	}
	if m.shot && len(m.btrfs.is) < 3 {
		m.w.fail("%s has lost a snapshot", m.name)
	}
}

// remembers looks for what the journal said that it has, and has not.
func (w *world) remembers() {
	recs, _, _ := state.Read(w.runDir(runID).Path)
	has := map[string]bool{}
	for _, rec := range recs {
		has[fmt.Sprint(rec.Epoch, rec.Seq, rec.Kind)] = true
	}
	for _, k := range w.kept {
		if !has[k] {
			w.fail("the journal has forgotten %s", k)
			return
		}
	}
}

// registered says that a controller's epoch is the host's from now on. What
// another one asked for, and has no receipt yet, must not take effect any more.
func (m *machine) registered(c *controller) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.writer == c {
		return
	}
	m.writer = c
	for p := range m.procs {
		if p.by != nil && p.by != c && !p.began {
			p.stale = true
		}
	}
}

// linked sees names that appear on the host's disk.
func (m *machine) linked(p *process, name string, data []byte) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	switch base := path.Base(name); {
	case base == "receipt.json":
		p.began = true
		p.stale = p.stale || p.by != nil && p.by != m.writer
	case strings.HasPrefix(base, "decision-") && strings.Contains(string(data), "restoring"):
		for q := range m.procs {
			q.late = q.late || !q.began
		}
	}
}

// decided tells whether a decision on the host's disk says so.
func (m *machine) decided(what string) bool {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	runs := m.disk.find("runs")
	if runs == nil {
		return false
	}
	for _, run := range runs.entries {
		for name, n := range run.entries {
			if strings.HasPrefix(name, "decision-") && strings.Contains(string(n.data), what) {
				return true
			}
		}
	}
	return false
}

// took sees who becomes the writer of the host.
func (m *machine) took(p *process, holder []byte) {
	var h agent.Holder
	if json.Unmarshal(holder, &h) == nil && h.Run != "" && p.by != nil {
		m.registered(p.by)
	}
}

// effect is something that changes the host; forward: to the new system.
func (m *machine) effect(p *process, forward bool, what string) {
	back := forward && m.decided("restoring")
	m.w.mu.Lock()
	unit := p.unit + " " + what
	m.ran[unit]++
	times, stale, late := m.ran[unit], p.stale || p.unit == "" && p.by != nil && p.by != m.writer, p.late || p.unit == ""
	m.w.mu.Unlock()
	if stale {
		m.w.fail("%s: %s by a controller that was taken over from (%s)", m.name, what, p.name)
	}
	if back && late {
		m.w.fail("%s: %s after it was decided to go back (%s)", m.name, what, p.name)
	}
	if forward && p.unit != "" && times > 1 {
		m.w.fail("%s: %s ran %d times as %s", m.name, what, times, p.unit)
	}
}

// released sees what is taken away that a restore may need.
func (m *machine) released(name string) {
	if strings.HasPrefix(path.Base(name), runID+"-old") && m.is() != "old" {
		m.w.fail("%s: %s is released while the host is %s", m.name, name, m.is())
	}
}

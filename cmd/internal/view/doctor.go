package view

import (
	"fmt"
	"strings"
)

// How a check of a host ended.
const (
	CheckOK   = "ok"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// Checkup is what `doctor` found of one host.
type Checkup struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Checks  []Checked `json:"checks"`
}

// Checked is one thing that was looked at, and what mends it.
type Checked struct {
	Check string   `json:"check"`
	State string   `json:"state"` // ok, warn or fail
	Text  string   `json:"text"`
	Hint  []string `json:"hint,omitempty"`
}

// Count tells how many checks ended in a way.
func Count(list []Checkup, state string) (n int) {
	for _, h := range list {
		for _, c := range h.Checks {
			if c.State == state {
				n++
			}
		}
	}
	return n
}

// Doctor prints checkups, host by host.
func (s *Streams) Doctor(list []Checkup) {
	var b strings.Builder
	for _, h := range list {
		fmt.Fprintf(&b, "%s  %s\n", s.style(bold, h.Name), Clean(h.Address))
		for _, c := range h.Checks {
			color := map[string]string{CheckOK: green, CheckWarn: yellow, CheckFail: red}[c.State]
			b.WriteString(s.wrap("  "+s.style(color, pad(c.State, 4))+"  "+pad(c.Check, 10)+"  ", c.Text))
			lead := "        next: "
			for _, hint := range c.Hint {
				b.WriteString(lead + Clean(s.Here(hint)) + "\n")
				lead = pad("", len(lead))
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d failed, %d to look at, %d ok\n", Count(list, CheckFail), Count(list, CheckWarn), Count(list, CheckOK))
	s.Printf("%s", b.String())
}

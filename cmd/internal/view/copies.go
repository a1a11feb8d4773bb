package view

import (
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/backup"
)

// Sent prints the copies that were made.
func (s *Streams) Sent(list []backup.Sent) {
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"HOST", "SUBVOLUME", "COPIED", "TRANSFERRED", "TOOK"}}
	for _, c := range list {
		how := "in full"
		if !c.Since.IsZero() {
			how = "changes"
		}
		rows = append(rows, []string{c.Host, Clean(c.Subvolume), how, Bytes(c.Bytes), Duration(c.Took)})
	}
	s.table(rows)
}

// Chains prints what the backup host has, and what is wrong with it.
func (s *Streams) Chains(list []backup.Chain, now time.Time) {
	rows := [][]string{{"HOST", "SUBVOLUME", "SET", "AGE", "STATE"}}
	var b strings.Builder
	for _, c := range list {
		for _, x := range c.Copies {
			set, age, state := "", "", "complete"
			if !x.Created.IsZero() {
				set, age = x.Set(), Duration(now.Sub(x.Created).Seconds())
			}
			switch {
			case x.Partial:
				state = "partial"
			case x.Problem != "":
				state = "unusable"
			case c.Parent(x):
				state = "complete, next from it"
			}
			rows = append(rows, []string{c.Host, Clean(x.Source), set, age, state})
		}
		for _, f := range c.Wrong {
			b.WriteString(s.wrap(s.style(red, "wrong: "), f.String()))
			s.hints(&b, f.Hint)
		}
	}
	if len(rows) > 1 {
		s.table(rows)
	}
	s.Printf("%s", b.String())
}

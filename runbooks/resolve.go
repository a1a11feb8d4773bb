package runbooks

import (
	"maps"
	"slices"
)

// ref is a name that stands for something of deployer.yaml.
type ref struct {
	what  string
	name  string
	pos   Pos
	check *Check // what to fill in, for a check

	opposite bool // the check's condition must say what is wrong
}

// names are those that deployer.yaml gives to what a text may name.
var names = map[string]func(*Project) []string{
	"host":   func(p *Project) []string { return slices.Collect(maps.Keys(p.Hosts)) },
	"check":  func(p *Project) []string { return slices.Collect(maps.Keys(p.Checks)) },
	"metric": func(p *Project) []string { return slices.Collect(maps.Keys(p.Metrics)) },
	"backup": func(p *Project) []string {
		if p.Backup != nil && p.Backup.OffHost != nil {
			return []string{"off-host"}
		}
		return nil
	},
}

// resolve looks every name up in the project. The checks of deployer.yaml
// itself are sections, not names of each other.
func (s *source) resolve(p *Project) {
	for _, r := range s.refs {
		known := names[r.what](p)
		switch {
		case r.check != nil && s == p.src:
			s.wrong(r.pos, "", "a check of deployer.yaml must be a section, not the name `%s`", r.name)
		case !slices.Contains(known, r.name):
			s.wrong(r.pos, meant(r.name, known), "%s has no %s `%s`", p.File, r.what, r.name)
		case r.check != nil:
			*r.check = *p.Checks[r.name]
			r.check.Name, r.check.Pos = r.name, r.pos
			if r.opposite && r.check.When != "" {
				r.check.When = "not (" + r.check.When + ")"
			}
		}
	}
}

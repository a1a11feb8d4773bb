package runbooks

import (
	"maps"
	"slices"
)

// ref is a name that stands for something of deployer.yaml.
type ref struct {
	what  string // host, check, metric, backup
	name  string
	pos   Pos
	check *Check // what to fill in, for a check

	opposite bool // the check's condition must say what is wrong
}

var refKinds = []string{"host", "metric", "backup"}

// resolve looks every name up in the project.
func (s *source) resolve(p *Project) {
	for _, r := range s.refs {
		known := p.names(r.what)
		switch {
		case !slices.Contains(known, r.name):
			s.wrong(r.pos, meant(r.name, known), "%s has no %s `%s`", p.File, r.what, r.name)
		case r.check != nil:
			*r.check = *p.Checks[r.name].named(r.name, r.pos)
			if r.opposite && r.check.When != "" {
				r.check.When = "not (" + r.check.When + ")"
			}
		}
	}
}

// named is a copy of a check as it stands where its name was used.
func (c *Check) named(name string, pos Pos) *Check {
	own := c.For(&Host{Name: "${host}", Address: "${host.address}", System: "${host.system}"})
	own.Name, own.Pos = name, pos
	return own
}

func (p *Project) names(what string) []string {
	switch what {
	case "host":
		return slices.Sorted(maps.Keys(p.Hosts))
	case "check":
		return slices.Sorted(maps.Keys(p.Checks))
	case "metric":
		return slices.Sorted(maps.Keys(p.Metrics))
	}
	if p.Backup != nil && p.Backup.OffHost != nil {
		return []string{"off-host"}
	}
	return nil
}

// resolveOwn looks up the names that deployer.yaml itself uses; its checks are
// sections, not names of each other.
func (s *source) resolveOwn(p *Project) {
	s.refs = slices.DeleteFunc(s.refs, func(r ref) bool {
		if r.check != nil {
			s.wrong(r.pos, "", "the check `%s` must be a section, not a word", r.check.Name)
		}
		return r.check != nil
	})
	s.resolve(p)
}

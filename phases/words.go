package phases

import (
	"fmt"
	"strings"

	"github.com/hbohlen/deployer/phases/agent"
)

// Words says in words what an operation does, for plans and logs.
func Words(op agent.Operation) string {
	switch op.Op {
	case agent.DoStopJob:
		return "stop " + op.Unit + " if it still runs"
	case agent.DoActivate:
		return "activate " + ShortPath(op.System)
	case agent.DoProfile:
		s := fmt.Sprintf("set the profile to generation %d", op.Generation)
		if op.Drop > 0 {
			s += fmt.Sprintf(", drop generation %d", op.Drop)
		}
		return s
	case agent.DoBoot:
		return "make " + ShortPath(op.Boot.System) + " the boot default"
	case agent.DoTrial:
		if op.System == "" {
			return "take the trial boot back, if there is one"
		}
		return "let the next boot alone start " + ShortPath(op.System)
	case agent.DoReboot:
		return "reboot into " + ShortPath(op.System)
	case agent.DoWriteFile:
		if op.Digest == "" && op.Link == "" {
			return "remove " + op.Path
		}
		return "put back " + op.Path
	case agent.DoData:
		if op.Data == nil {
			return "take back what an earlier choice of data has restored in part"
		}
		if op.Data.Itself {
			return "give back its name to what was mounted at " + shorten(sources(op.Data), 4) + " before the run, if another layout has put it away"
		}
		return "put back " + shorten(sources(op.Data), 4) + " as before the run; what is there now is kept as a snapshot"
	case agent.DoStart:
		return "start what was stopped for that"
	case agent.DoUnits:
		return "start again what was active: " + shorten(op.Units, 4)
	}
	return op.Op
}

func sources(d *agent.Data) (list []string) {
	if d != nil {
		for _, s := range d.Snapshots {
			list = append(list, s.Source)
		}
	}
	return list
}

func shorten(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}

// commits tells whether a recipe undoes more than a running system: the profile
// or the boot default may be new, so a reboot alone is no way back.
func commits(r agent.Recipe) bool {
	for _, op := range r.Operations {
		if op.Op == agent.DoProfile || op.Op == agent.DoBoot {
			return true
		}
	}
	return false
}

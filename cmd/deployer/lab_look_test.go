package main_test

import (
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/cmd/internal/labtest"
)

// look is all of a host that a rollback has to bring back.
type look struct {
	Facts labtest.Facts
	Boot  []string // sha256 of the boot loader's files, kernels and all
	Stat  []string // kind, mode and owner of the declared files
}

// guardless waits until no guard watches a host: one that is no longer needed
// sees so within a second, and ends.
const guardless = `for i in $(seq 50); do [ -z "$(systemctl list-units --state=active --plain --no-legend 'deployer-guard-*' deployer-resume.service)" ] && break; sleep 0.1; done
	`

// look looks from inside, so that it works with the network cut. A guard that
// stays is one of the units that are seen.
func (s *site) look(h labtest.Host) look {
	s.Helper()
	script := guardless + `cd /boot && find loader grub EFI kernels -type f -exec sha256sum {} + 2>/dev/null | sort -k2; echo ---
		for f in ` + strings.Join(declared, " ") + `; do stat -c '%n %F %a %u:%g %N' "$f" 2>/dev/null || echo "$f -"; done`
	boot, stat, _ := strings.Cut(h.Enter(s.T, script), "---\n")
	return look{h.Facts(s.T, declared...), strings.Split(boot, "\n"), strings.Split(stat, "\n")}
}

// looks looks at both hosts; the function it gives back does so again and wants
// them to be the same.
func (s *site) looks() (same func()) {
	s.Helper()
	hosts := []labtest.Host{s.staging, s.production}
	before := map[labtest.Host]look{}
	for _, h := range hosts {
		before[h] = s.look(h)
	}
	return func() {
		s.Helper()
		for _, h := range hosts {
			if d := cmp.Diff(before[h], s.look(h)); d != "" {
				s.Errorf("%s is not what it was (-before +after):\n%s", h, d)
			}
		}
	}
}

// serves wants the application to answer with a version.
func (s *site) serves(h labtest.Host, version string) {
	s.Helper()
	if got := h.Enter(s.T, "curl -s http://localhost:8080/"); got != "lab-app "+version {
		s.Errorf("%s serves %q, not %s", h, got, version)
	}
}

func (s *site) equal(what string, got, want any) {
	s.Helper()
	if d := cmp.Diff(want, got); d != "" {
		s.Errorf("%s (-want +got):\n%s", what, d)
	}
}

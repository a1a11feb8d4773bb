package main_test

import (
	"testing"

	"github.com/hbohlen/deployer/state"
)

var grub = labKind{Backend: "container", Loader: "grub", Launcher: true, Trust: true}

func newGrubSite(t *testing.T) *site {
	return newSiteIn(t, grub, "--loader grub staging production")
}

// The variants in which the boot loader has a part, with GRUB: grub.cfg is what
// it was, byte for byte.
func TestLabGrubVariants(t *testing.T) {
	for _, v := range variants {
		switch v.name {
		case "a unit dies after three seconds", "the boot loader fails", "/boot fills up before the commit":
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				v.goesBack(newGrubSite(t))
			})
		}
	}
}

func TestLabGrubRollback(t *testing.T) {
	t.Parallel()
	s := newGrubSite(t)
	same := s.looks()
	r := s.run(0)
	r.tells("")
	for _, h := range r.plan.Hosts {
		s.agree(s.host(h.Name), h.To)
	}
	s.want(0, "rollback", "--yes")
	same()
	s.latest().lanes(state.Restored, state.Restored)
}

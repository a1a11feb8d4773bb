package ssh

import (
	"testing"

	"github.com/hbohlen/deployer/phases/host"
)

// BenchmarkExec compares a command through this package with a bare session.
func BenchmarkExec(b *testing.B) {
	s := newSite(b)
	h := s.dial(s.up())
	b.Run("host", func(b *testing.B) {
		for b.Loop() {
			if res, err := h.Run(b.Context(), host.Command{Args: []string{"/bin/true"}}); err != nil || res.Code != 0 {
				b.Fatal(res, err)
			}
		}
	})
	b.Run("crypto", func(b *testing.B) {
		for b.Loop() {
			sess, err := h.link.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			if err := sess.Run("/bin/true"); err != nil {
				b.Fatal(err)
			}
			sess.Close()
		}
	})
}

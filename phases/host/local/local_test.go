package local_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/host/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	hosttest.Conformance(t, func() host.Host {
		h, err := local.New(t.Context(), "here")
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}

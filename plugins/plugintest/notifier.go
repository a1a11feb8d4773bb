package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/proto"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Event is a full event, for tests.
func Event(id string) host.Event {
	code := 20
	return host.Event{
		ID: id, Run: "20260301T020000Z-deploy", Runbook: "production", Kind: "rollback", Severity: "critical",
		Time: time.Date(2026, 3, 1, 2, 14, 0, 0, time.UTC), Title: "web-1 was rolled back",
		Text: "healthz answered 503", Fields: map[string]string{"check": "healthy"}, ExitCode: &code,
	}
}

// Notifier runs the suite for notifiers. Every part gets a plugin of its own.
func Notifier(t *testing.T, newPlugin func() sdk.Plugin, config json.RawMessage, services host.Services) {
	open := func(t *testing.T) *host.Plugin { return connected(t, newPlugin(), config, services, proto.Notifier) }
	deliver := func(t *testing.T, n *host.Plugin, event host.Event) {
		if _, err := n.Notify(t.Context(), event); err != nil {
			t.Errorf("cannot deliver %s: %v", event.ID, err)
		}
	}
	t.Run("delivers an event, and the same again", func(t *testing.T) {
		n := open(t)
		deliver(t, n, Event("event-1"))
		deliver(t, n, Event("event-1"))
	})
	t.Run("delivers an event that says next to nothing", func(t *testing.T) {
		deliver(t, open(t), host.Event{ID: "event-2", Title: "hello"})
	})
	t.Run("delivers several at once", func(t *testing.T) {
		n := open(t)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() { deliver(t, n, Event(fmt.Sprintf("event-3-%d", i))) })
		}
		all.Wait()
	})
	t.Run("stops when it is told to", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := open(t).Notify(ctx, Event("event-4")); err == nil {
			t.Error("it delivered after its context had ended")
		}
	})
}

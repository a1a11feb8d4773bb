package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// Event is a full event, for tests.
func Event(id string) host.Event {
	code := 20
	return host.Event{
		ID: id, Run: "20260301T020000Z-deploy", Host: "web-1", Runbook: "production", Phase: "validate", Kind: "rollback",
		Severity: "critical", Time: time.Date(2026, 3, 1, 2, 14, 0, 0, time.UTC), Title: "web-1 was rolled back",
		Text: "healthz answered 503", Fields: map[string]string{"check": "healthy"},
		Links: []host.Link{{Title: "report", URL: "https://example.net/r/1"}}, ExitCode: &code,
	}
}

// Notifier runs the suite for notifiers. Every part gets a plugin of its own.
func Notifier(t *testing.T, newPlugin func() sdk.Plugin, config json.RawMessage, services host.Services) {
	open := func(t *testing.T) host.Notifier {
		p := connected(t, newPlugin(), config, services)
		described(t, p)
		n, ok := p.Notifier()
		if !ok {
			t.Fatal("it does not advertise the capability notifier")
		}
		return n
	}
	t.Run("delivers an event under its key", func(t *testing.T) { delivers(t, open(t), Event("event-1")) })
	t.Run("delivers the same event again", func(t *testing.T) {
		n := open(t)
		delivers(t, n, Event("event-2"))
		delivers(t, n, Event("event-2"))
	})
	t.Run("delivers an event that says next to nothing", func(t *testing.T) {
		delivers(t, open(t), host.Event{ID: "event-3", Title: "hello"})
	})
	t.Run("delivers several at once", func(t *testing.T) {
		n := open(t)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() { delivers(t, n, Event(fmt.Sprintf("event-4-%d", i))) })
		}
		all.Wait()
	})
	t.Run("stops when it is told to", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := open(t).Notify(ctx, Event("event-5")); err == nil {
			t.Error("it delivered after its context had ended")
		}
	})
}

func delivers(t *testing.T, n host.Notifier, event host.Event) {
	t.Helper()
	got, err := n.Notify(t.Context(), event)
	if err != nil {
		t.Errorf("cannot deliver %s: %v", event.ID, err)
	} else if got.Key != event.ID {
		t.Errorf("the delivery of %s has the key %q: it must be the event's id", event.ID, got.Key)
	}
}

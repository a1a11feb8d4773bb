package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hbohlen/deployer/plugins/sdk"
)

// The kinds, which are also the names of the plugins.
const (
	KindWebhook = "webhook"
	KindFile    = "file"
)

// Serve runs the plugin of a kind.
func Serve(kind string) error {
	switch kind {
	case KindWebhook:
		sdk.Serve(Webhook())
	case KindFile:
		sdk.Serve(File())
	default:
		return fmt.Errorf("there is no notifier %q: it is %s or %s", kind, KindWebhook, KindFile)
	}
	return nil
}

// message is an event as receivers read it.
type message struct {
	ID       string            `json:"id"`
	Run      string            `json:"run,omitempty"`
	Host     string            `json:"host,omitempty"`
	Runbook  string            `json:"runbook,omitempty"`
	Phase    string            `json:"phase,omitempty"`
	Kind     string            `json:"kind"`
	Severity string            `json:"severity"`
	Time     time.Time         `json:"time"`
	Title    string            `json:"title"`
	Text     string            `json:"text,omitempty"`
	Fields   map[string]string `json:"fields,omitempty"`
	Links    []link            `json:"links,omitempty"`
	ExitCode *int32            `json:"exit_code,omitempty"`
}

type link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

func encode(e *sdk.Event) ([]byte, error) {
	m := message{
		ID: e.GetId(), Run: e.GetRun(), Host: e.GetHost(), Runbook: e.GetRunbook(), Phase: e.GetPhase(), Kind: e.GetKind(),
		Severity: e.GetSeverity(), Time: e.GetTime().AsTime(), Title: e.GetTitle(), Text: e.GetText(), Fields: e.GetFields(), ExitCode: e.ExitCode,
	}
	for _, l := range e.GetLinks() {
		m.Links = append(m.Links, link{Title: l.GetTitle(), URL: l.GetUrl()})
	}
	return json.Marshal(m)
}

// decode reads a configuration and refuses what it does not know.
func decode(config json.RawMessage, into any) error {
	if len(config) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return &sdk.Error{Code: "config", Message: fmt.Sprintf("cannot read the configuration: %v", err)}
	}
	return nil
}

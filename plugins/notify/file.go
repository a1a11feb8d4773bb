package notify

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/hbohlen/deployer/plugins/sdk"
)

type file struct {
	Path string `json:"path"`
}

// File is the plugin that appends events to a file.
func File() sdk.Plugin {
	f := &file{}
	return sdk.Plugin{
		Name:      KindFile,
		Version:   "1.0.0",
		Notifier:  f,
		Schema:    json.RawMessage(`{"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": false}`),
		Configure: f.configure,
	}
}

func (f *file) configure(_ context.Context, config json.RawMessage, _ sdk.Core) error {
	if err := decode(config, f); err != nil {
		return err
	}
	if !filepath.IsAbs(f.Path) {
		return &sdk.Error{Code: "config", Message: "path must be absolute, as in /var/log/deployer.jsonl"}
	}
	return nil
}

// Notify appends one line. It is written at once, so that lines of several
// runs do not mix.
func (f *file) Notify(_ context.Context, event *sdk.Event) (*sdk.Delivery, error) {
	line, err := encode(event)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(f.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if _, err := out.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	if err := out.Sync(); err != nil {
		return nil, err
	}
	return &sdk.Delivery{Key: event.GetId(), Detail: f.Path}, out.Close()
}

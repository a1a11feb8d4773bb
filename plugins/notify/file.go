// Package notify holds the notifiers that ship with deployer. Each kind is a
// plugin of its own. What they deliver is the JSON of sdk.Event.
//
// webhook posts the event. It verifies TLS, always.
//
//   - With the secret "sign" a post carries
//     X-Deployer-Signature: t=UNIX,v1=HEX, where HEX is the HMAC-SHA256, under
//     that secret, of the digits of UNIX, a full stop and the body. A receiver
//     computes the same, compares in constant time and refuses old times.
//   - Idempotency-Key is the event's id, the same at every attempt.
//   - An answer of 5xx or 429, and a network that fails, are tried again until
//     shortly before the deadline of the call; any other answer is final, and a
//     redirection is not followed.
//   - No error and no delivery shows more of the URL than its host.
//
// file appends one line per event and syncs it before it answers.
package notify

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/hbohlen/deployer/plugins/sdk"
)

type file struct{ Path string }

// File is the plugin that appends events to a file.
func File() sdk.Plugin {
	f := &file{}
	return sdk.Plugin{Name: "file", Version: "1.0.0", Notifier: f, Configure: f.configure}
}

func (f *file) configure(_ context.Context, config json.RawMessage, _ *sdk.Core) error {
	if err := json.Unmarshal(config, f); err != nil || !filepath.IsAbs(f.Path) {
		return &sdk.Error{Code: "config", Message: "path must be absolute, as in /var/log/deployer.jsonl"}
	}
	return nil
}

// Notify appends one line. It is written at once, so that lines of several
// runs do not mix.
func (f *file) Notify(_ context.Context, event sdk.Event) (string, error) {
	line, err := json.Marshal(event)
	if err != nil {
		return "", err
	}
	out, err := os.OpenFile(f.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer out.Close()
	if _, err := out.Write(append(line, '\n')); err != nil {
		return "", err
	}
	return f.Path, out.Sync()
}

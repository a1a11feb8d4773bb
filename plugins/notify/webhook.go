package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hbohlen/deployer/plugins/sdk"
)

type webhook struct {
	client http.Client
	url    *url.URL
	sign   []byte
}

// Webhook is the plugin that posts events.
func Webhook() sdk.Plugin {
	w := &webhook{client: http.Client{
		Timeout:       4 * time.Second, // of one attempt
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return sdk.Plugin{Name: "webhook", Version: "1.0.0", Notifier: w, Secrets: []string{"url", "sign"}, Configure: w.configure}
}

func (w *webhook) configure(ctx context.Context, config json.RawMessage, core *sdk.Core) error {
	var c struct{ URL string }
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	if c.URL == "" {
		secret, err := optional(ctx, core, "url")
		if err != nil {
			return err
		}
		c.URL = secret
	}
	at, err := url.Parse(c.URL)
	if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
		return &sdk.Error{Code: "config", Message: "url is missing, or is no http or https URL (not shown: it may hold a secret)"}
	}
	sign, err := optional(ctx, core, "sign")
	w.url, w.sign = at, []byte(sign)
	return err
}

// optional is a secret, or "" where none is configured.
func optional(ctx context.Context, core *sdk.Core, name string) (string, error) {
	value, err := core.Secret(ctx, name)
	var e *sdk.Error
	if errors.As(err, &e) && e.Code == "not-found" {
		return "", nil
	}
	return value, err
}

// Notify posts until somebody has said yes or no, or the time is over. It ends
// a little before the call does, so that its error is the reason and not the
// end of time.
func (w *webhook) Notify(ctx context.Context, event sdk.Event) (string, error) {
	body, err := json.Marshal(event)
	if err != nil {
		return "", err
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(10 * time.Second)
	}
	end = end.Add(-500 * time.Millisecond)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var reason error
	for attempt, pause := 1, 250*time.Millisecond; ; attempt, pause = attempt+1, min(2*pause, 3*time.Second) {
		code, again, err := w.post(ctx, event.ID, body)
		if err == nil {
			return fmt.Sprintf("%s answered %d, %d attempts", w.url.Host, code, attempt), nil
		}
		if ctx.Err() == nil || reason == nil {
			reason = err
		}
		wait := max(pause, again)
		if again == never || time.Until(end) < wait || !sleep(ctx, wait) {
			return "", fmt.Errorf("cannot post to %s, %d attempts: %w", w.url.Host, attempt, reason)
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

const never = time.Duration(-1)

// post is one attempt. The time in its signature is its own; its key is not.
// again is how long to wait, at least, for the next one.
func (w *webhook) post(ctx context.Context, key string, body []byte) (code int, again time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return 0, never, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "deployer")
	req.Header.Set("Idempotency-Key", key)
	if len(w.sign) > 0 {
		req.Header.Set("X-Deployer-Signature", signature(w.sign, time.Now(), body))
	}
	resp, err := w.client.Do(req)
	var whole *url.Error // shows the whole URL
	if errors.As(err, &whole) {
		err = whole.Err
	}
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	switch code = resp.StatusCode; {
	case code >= 200 && code < 300:
		return code, 0, nil
	case code < 500 && code != http.StatusTooManyRequests:
		again = never
	default:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		again = time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	return code, again, fmt.Errorf("answered %d", code)
}

func signature(key []byte, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

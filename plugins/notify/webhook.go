package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/hbohlen/deployer/plugins/sdk"
)

type webhook struct {
	client *http.Client
	url    *url.URL
	sign   []byte
}

// Webhook is the plugin that posts events.
func Webhook() sdk.Plugin {
	w := &webhook{client: client()}
	return sdk.Plugin{
		Name:      KindWebhook,
		Version:   "1.0.0",
		Notifier:  w,
		Secrets:   []string{"url", "sign"},
		Schema:    json.RawMessage(`{"type": "object", "properties": {"url": {"type": "string", "format": "uri"}}, "additionalProperties": false}`),
		Configure: w.configure,
	}
}

func client() *http.Client {
	return &http.Client{
		Timeout:       4 * time.Second, // of one attempt
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (w *webhook) configure(ctx context.Context, config json.RawMessage, core sdk.Core) error {
	var c struct {
		URL string `json:"url"`
	}
	if err := decode(config, &c); err != nil {
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
func optional(ctx context.Context, core sdk.Core, name string) (string, error) {
	value, err := core.Secret(ctx, name)
	var e *sdk.Error
	if errors.As(err, &e) && e.Code == "not-found" {
		return "", nil
	}
	return value, err
}

// Notify posts until somebody has said yes or no, or the time is over.
func (w *webhook) Notify(ctx context.Context, event *sdk.Event) (*sdk.Delivery, error) {
	body, err := encode(event)
	if err != nil {
		return nil, err
	}
	ctx, cancel := shortly(ctx)
	defer cancel()
	attempts, last := 0, error(nil)
	code, err := backoff.Retry(ctx, func() (int, error) {
		attempts++
		code, err := w.post(ctx, event.GetId(), body)
		if ctx.Err() == nil || last == nil {
			last = err
		}
		return code, err
	}, backoff.WithBackOff(pace()), backoff.WithMaxElapsedTime(left(ctx)))
	if err != nil {
		return nil, fmt.Errorf("cannot post to %s, %d attempts: %w", w.url.Host, attempts, plain(last))
	}
	return &sdk.Delivery{Key: event.GetId(), Detail: fmt.Sprintf("%s answered %d, %d attempts", w.url.Host, code, attempts)}, nil
}

func pace() backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 250 * time.Millisecond
	b.MaxInterval = 3 * time.Second
	return b
}

// shortly ends a little before the call does, so that its error is the reason
// and not the end of time.
func shortly(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(10 * time.Second)
	}
	return context.WithDeadline(ctx, end.Add(-500*time.Millisecond))
}

// left is the time until then: a receiver that names a later time is not waited for.
func left(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return time.Until(end)
}

// plain takes off what backoff and net/http wrap an error in: the latter shows
// the whole URL.
func plain(err error) error {
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err
}

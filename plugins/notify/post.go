package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// post is one attempt. The time in its signature is its own; its key is not.
func (w *webhook) post(ctx context.Context, key string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return 0, backoff.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "deployer")
	req.Header.Set("Idempotency-Key", key)
	if len(w.sign) > 0 {
		req.Header.Set("X-Deployer-Signature", signature(w.sign, time.Now(), body))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	return resp.StatusCode, verdict(resp)
}

// verdict says whether an answer is a yes, a no, or a not now.
func verdict(resp *http.Response) error {
	code := resp.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	err := fmt.Errorf("answered %d", code)
	if code < 500 && code != http.StatusTooManyRequests {
		return backoff.Permanent(err)
	}
	if seconds, bad := strconv.Atoi(resp.Header.Get("Retry-After")); bad == nil && seconds > 0 {
		return &later{error: err, after: backoff.RetryAfter(seconds)}
	}
	return err
}

// later is an answer that names the time of the next attempt.
type later struct {
	error
	after error
}

func (l *later) Unwrap() error { return l.after }

func signature(key []byte, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

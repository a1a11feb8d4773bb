package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hbohlen/deployer/plugins/host"
	"github.com/hbohlen/deployer/plugins/notify"
	"github.com/hbohlen/deployer/plugins/plugintest"
	"github.com/hbohlen/deployer/plugins/sdk"
)

// receiver answers with its codes in turn, the last one for ever.
type receiver struct {
	*httptest.Server
	codes  []int
	header http.Header

	mu   sync.Mutex
	got  []*http.Request
	body []string
}

func receive(t *testing.T, codes ...int) *receiver {
	r := &receiver{codes: codes, header: http.Header{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	code := 200
	if n := len(r.codes); n > 0 {
		code = r.codes[min(len(r.got), n-1)]
	}
	r.got, r.body = append(r.got, req), append(r.body, string(body))
	for key, values := range r.header {
		w.Header()[key] = values
	}
	w.WriteHeader(code)
}

func secrets(values map[string]string) host.Services {
	return host.Services{Secret: func(_ context.Context, name string) (string, bool, error) {
		value, ok := values[name]
		return value, ok, nil
	}}
}

func open(t *testing.T, p sdk.Plugin, config string, services host.Services) *host.Plugin {
	t.Helper()
	launched, err := plugintest.Connect(t, p, json.RawMessage(config), services)
	if err != nil {
		t.Fatal(err)
	}
	return launched
}

func TestConformance(t *testing.T) {
	t.Run("webhook", func(t *testing.T) {
		plugintest.Notifier(t, notify.Webhook, json.RawMessage(`{"url": "`+receive(t).URL+`"}`), host.Services{})
	})
	t.Run("file", func(t *testing.T) {
		plugintest.Notifier(t, notify.File, json.RawMessage(`{"path": "`+filepath.Join(t.TempDir(), "events.jsonl")+`"}`), host.Services{})
	})
}

func TestAPostIsSigned(t *testing.T) {
	r := receive(t)
	n := open(t, notify.Webhook(), "{}", secrets(map[string]string{"url": r.URL + "/hook/token", "sign": "s3cret"}))
	if _, err := n.Notify(t.Context(), plugintest.Event("e1")); err != nil {
		t.Fatal(err)
	}
	stamp, sum, ok := strings.Cut(strings.TrimPrefix(r.got[0].Header.Get("X-Deployer-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write([]byte(stamp + "." + r.body[0]))
	if want := hex.EncodeToString(mac.Sum(nil)); !ok || sum != want {
		t.Errorf("signature %q, want v1=%s", r.got[0].Header.Get("X-Deployer-Signature"), want)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(r.body[0]), &body); err != nil || body["id"] != "e1" || body["exit_code"] != 20.0 || body["time"] != "2026-03-01T02:14:00Z" {
		t.Errorf("%v: %s", err, r.body[0])
	}
	if r.got[0].URL.Path != "/hook/token" || r.got[0].Method != "POST" {
		t.Errorf("%s %s", r.got[0].Method, r.got[0].URL)
	}
}

func TestAPostIsTriedAgainUnderTheSameKey(t *testing.T) {
	r := receive(t, 503, 429, 200)
	got, err := open(t, notify.Webhook(), `{"url": "`+r.URL+`"}`, host.Services{}).Notify(t.Context(), plugintest.Event("e1"))
	if err != nil || !strings.Contains(got, "answered 200, 3 attempts") {
		t.Errorf("%+v %v", got, err)
	}
	for i, req := range r.got {
		if req.Header.Get("Idempotency-Key") != "e1" {
			t.Errorf("attempt %d has the key %q", i+1, req.Header.Get("Idempotency-Key"))
		}
	}
}

func TestANoIsFinal(t *testing.T) {
	for _, code := range []int{400, 401, 404, 302} {
		r := receive(t, code)
		r.header.Set("Location", "http://127.0.0.1:1/")
		_, err := open(t, notify.Webhook(), `{"url": "`+r.URL+`"}`, host.Services{}).Notify(t.Context(), plugintest.Event("e1"))
		if err == nil || len(r.got) != 1 {
			t.Errorf("%d: %v after %d attempts", code, err, len(r.got))
		}
	}
}

func TestRetriesEndWithTheDeadlineAndSayWhy(t *testing.T) {
	for _, later := range []string{"", "3600"} {
		r := receive(t, 503)
		r.header.Set("Retry-After", later)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err := open(t, notify.Webhook(), `{"url": "`+r.URL+`"}`, host.Services{}).Notify(ctx, plugintest.Event("e1"))
		if err == nil || !strings.Contains(err.Error(), "answered 503") {
			t.Errorf("Retry-After %q: %v", later, err)
		}
	}
}

func TestNothingShowsTheURL(t *testing.T) {
	r := receive(t, 404)
	closed := receive(t)
	closed.Close()
	tls := httptest.NewTLSServer(r)
	defer tls.Close()
	for _, url := range []string{r.URL, closed.URL, tls.URL, "ftp://x", "https://%zz"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p, err := plugintest.Connect(t, notify.Webhook(), json.RawMessage(`{}`), secrets(map[string]string{"url": url + "/t0ken?key=t0ken"}))
		if err == nil {
			_, err = p.Notify(ctx, plugintest.Event("e1"))
		}
		if err == nil || strings.Contains(err.Error(), "t0ken") || strings.Contains(err.Error(), "zz") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTLSIsVerified(t *testing.T) {
	r := receive(t)
	tls := httptest.NewTLSServer(r)
	defer tls.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := open(t, notify.Webhook(), `{"url": "`+tls.URL+`"}`, host.Services{}).Notify(ctx, plugintest.Event("e1"))
	if err == nil || !strings.Contains(err.Error(), "certificate") || len(r.got) > 0 {
		t.Errorf("%v, %d posts", err, len(r.got))
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	for _, c := range []struct {
		p    sdk.Plugin
		json string
		want string
	}{
		{notify.Webhook(), `{}`, "url is missing"},
		{notify.File(), `{"path": "events"}`, "absolute"},
	} {
		_, err := plugintest.Connect(t, c.p, json.RawMessage(c.json), host.Services{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.json, err, c.want)
		}
	}
}

func TestAFileHoldsOneLinePerEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	n := open(t, notify.File(), `{"path": "`+path+`"}`, host.Services{})
	for _, id := range []string{"e1", "e2"} {
		if _, err := n.Notify(t.Context(), plugintest.Event(id)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[1], `"id":"e2"`) || !json.Valid([]byte(lines[0])) {
		t.Errorf("%v: %s", err, data)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

package agent

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestProbes(t *testing.T) {
	h := newHost(t)
	h.file("proc/self/mountinfo", "1 0 0:1 / / rw - btrfs /dev/x rw\n2 1 0:2 / /data\\040x rw shared:1 - ext4 /dev/y rw\n")
	h.file("etc/hello", "hello world")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/down", http.StatusFound)
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/slow":
			time.Sleep(2 * time.Second)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		default:
			fmt.Fprintf(w, "host %s key %s", r.Host, r.Header.Get("Key"))
		}
	}))
	t.Cleanup(web.Close)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed := free.Addr().String()
	free.Close()
	for name, c := range map[string]struct {
		probe  Probe
		ok     bool
		detail string
	}{
		"command":            {Probe{Kind: "command", Args: []string{"true"}}, true, "exit 0"},
		"command fails":      {Probe{Kind: "command", Args: []string{"sh", "-c", "echo why >&2; exit 3"}}, false, "exit 3"},
		"command hangs":      {Probe{Kind: "command", Args: []string{"sleep", "60"}, Timeout: 50 * time.Millisecond}, false, "did not end"},
		"command missing":    {Probe{Kind: "command", Args: []string{"/no/such"}}, false, "no such file"},
		"command none":       {Probe{Kind: "command"}, false, "without a name"},
		"unit":               {Probe{Kind: "unit", Target: "ok.service"}, true, "active"},
		"unit failed":        {Probe{Kind: "unit", Target: "bad.service"}, false, "failed"},
		"unit not there":     {Probe{Kind: "unit", Target: "none.service"}, false, "not-found"},
		"unit start":         {Probe{Kind: "unit", Target: "new.service", Start: true}, true, "active"},
		"unit start fails":   {Probe{Kind: "unit", Target: "broken.service", Start: true}, false, "failed"},
		"tcp":                {Probe{Kind: "tcp", Target: web.Listener.Addr().String()}, true, "answers"},
		"tcp closed":         {Probe{Kind: "tcp", Target: closed}, false, "refused"},
		"http":               {Probe{Kind: "http", Target: web.URL, Headers: map[string]string{"Key": "k", "Host": "a.example"}, Body: "host a.example key k"}, true, "200"},
		"http status":        {Probe{Kind: "http", Target: web.URL + "/down", Status: 503}, true, "503"},
		"http wrong status":  {Probe{Kind: "http", Target: web.URL + "/down", Status: 200}, false, "503, want 200"},
		"http redirect":      {Probe{Kind: "http", Target: web.URL + "/moved"}, true, "302"},
		"http redirect, 200": {Probe{Kind: "http", Target: web.URL + "/moved", Status: 200}, false, "302, want 200"},
		"http body":          {Probe{Kind: "http", Target: web.URL, Body: "nope"}, false, "do not contain"},
		"http slow":          {Probe{Kind: "http", Target: web.URL + "/slow", Timeout: 50 * time.Millisecond}, false, "deadline"},
		"http endless":       {Probe{Kind: "http", Target: web.URL + "/endless"}, true, "200"},
		"http nobody":        {Probe{Kind: "http", Target: "http://" + closed}, false, "refused"},
		"http nonsense":      {Probe{Kind: "http", Target: "::"}, false, ""},
		"file":               {Probe{Kind: "file", Target: "/etc/hello"}, true, "exists"},
		"file contains":      {Probe{Kind: "file", Target: "/etc/hello", Body: "lo wo"}, true, "contains"},
		"file lacks":         {Probe{Kind: "file", Target: "/etc/hello", Body: "nope"}, false, "does not contain"},
		"file missing":       {Probe{Kind: "file", Target: "/etc/none", Body: "x"}, false, "does not exist"},
		"mount":              {Probe{Kind: "mount", Target: "/data x", Body: "ext4"}, true, "ext4"},
		"mount other type":   {Probe{Kind: "mount", Target: "/data x", Body: "btrfs"}, false, "want btrfs"},
		"mount not":          {Probe{Kind: "mount", Target: "/data x/y"}, false, "not mounted"},
		"disk":               {Probe{Kind: "disk", Target: "/"}, true, "free"},
		"disk missing":       {Probe{Kind: "disk", Target: "/none"}, false, "no such"},
		"subvolumes none":    {Probe{Kind: "subvolumes"}, false, "0 of 0"},
		"subvolumes folder":  {Probe{Kind: "subvolumes", Paths: []string{"/proc"}}, false, ""},
		"snapshot none":      {Probe{Kind: "snapshot", Target: "/etc"}, false, "no read-only snapshot"},
		"snapshot missing":   {Probe{Kind: "snapshot", Target: "/none"}, false, "no such"},
		"unknown kind":       {Probe{Kind: "tea"}, false, "cannot look"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := h.probe(context.Background(), c.probe)
			if err != nil || s.OK != c.ok || !strings.Contains(strings.ToLower(s.Detail), c.detail) {
				t.Errorf("%+v %v, want %t %q", s, err, c.ok, c.detail)
			}
		})
	}
}

func TestNoDataIsNeverOK(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		s := numbers(Sample{OK: true, Values: map[string]float64{"a": v, "b": 1}})
		if s.OK || len(s.Values) != 1 {
			t.Errorf("%+v", s)
		}
	}
}

func TestEveryProbeEnds(t *testing.T) {
	probes["test.hang"] = func(*agent, context.Context, Probe) Sample { select {} }
	defer delete(probes, "test.hang")
	start := time.Now()
	s := Look(t.Context(), Probe{Kind: "test.hang", Timeout: 10 * time.Millisecond})
	if s.OK || time.Since(start) > 10*time.Second || !strings.Contains(s.Detail, "no answer") {
		t.Errorf("%+v", s)
	}
}

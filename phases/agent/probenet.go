package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

func (a *agent) probeTCP(ctx context.Context, p Probe) Sample {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Target)
	if err != nil {
		return no("%v", err)
	}
	conn.Close()
	return yes("%s answers", p.Target)
}

func (a *agent) probeHTTP(ctx context.Context, p Probe) Sample {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Target, nil)
	if err != nil {
		return no("%v", err)
	}
	for k, v := range p.Headers {
		if strings.EqualFold(k, "host") {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	// A connection of its own each time, no proxy from somebody's environment,
	// and the answer itself instead of where it points.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return no("%v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyMax))
	s := judgeHTTP(p, res.StatusCode, body)
	if err != nil && s.OK {
		s = no("%v", err)
	}
	return s
}

func judgeHTTP(p Probe, status int, body []byte) Sample {
	s := Sample{Values: map[string]float64{"status": float64(status)}, Output: string(body[:min(len(body), outputTail)])}
	switch {
	case p.Status != 0 && status != p.Status:
		s.Detail = fmt.Sprintf("%d, want %d", status, p.Status)
	case p.Status == 0 && status >= 400:
		s.Detail = fmt.Sprintf("%d, want below 400", status)
	case !bytes.Contains(body, []byte(p.Body)):
		s.Detail = fmt.Sprintf("%d, but the first %d bytes do not contain %q", status, bodyMax, p.Body)
	default:
		s.OK, s.Detail, s.Output = true, fmt.Sprintf("%d", status), ""
	}
	return s
}

package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/runbooks"
)

// healthy is a host with which nothing is wrong.
func healthy(t *testing.T) phases.Examined {
	trusted := true
	l := phases.NewLane(&runbooks.Host{Name: "one", Address: "one.example.net"}, nil)
	l.Host = hosttest.New(t, "one")
	l.Seen = agent.Facts{OS: "nixos", Launcher: true, Module: true, Trusted: &trusted, BootBytes: 60 << 20,
		StateDir: &agent.StateDir{Mode: 0o700, FS: "btrfs", Subvolume: true},
		Space:    []agent.Space{{Path: "/boot", Total: 500 << 20, Free: 200 << 20}, {Path: "/nix", Total: 100 << 30, Free: 50 << 30}, {Path: "/persist"}}}
	return phases.Examined{Lane: l, Agent: true}
}

func TestCheckup(t *testing.T) {
	for want, spoil := range map[string]func(x *phases.Examined){
		"": func(*phases.Examined) {},
		"fail login no answer": func(x *phases.Examined) {
			x.Err = &host.Error{Kind: host.Timeout, Host: "one", Err: errors.New("no answer"), Hint: []string{"x"}}
		},
		"fail host key changed": func(x *phases.Examined) {
			x.Err = &host.Error{Kind: host.HostKey, Host: "one", Err: errors.New("changed"), Hint: []string{"x"}}
		},
		"fail switch no launcher": func(x *phases.Examined) {
			x.Findings = []phases.Finding{{Host: "one", What: "no launcher", Hint: []string{"x"}}}
		},
		"warn switch trusts":            func(x *phases.Examined) { x.Seen.Trusted = nil },
		"fail programs systemd-run":     func(x *phases.Examined) { x.Seen.Missing = []string{"systemd-run"} },
		"fail agent exit code 126":      func(x *phases.Examined) { x.Agent, x.AgentErr = false, errors.New("exit code 126") },
		"fail state mode 0750":          func(x *phases.Examined) { x.Seen.StateDir.Mode = 0o750 },
		"fail state owner 1000":         func(x *phases.Examined) { x.Seen.StateDir.Owner = 1000 },
		"fail state survive a boot":     func(x *phases.Examined) { x.Seen.StateDir.FS = "tmpfs" },
		"warn state no subvolume":       func(x *phases.Examined) { x.Seen.StateDir.Subvolume = false },
		"warn module deployer-host":     func(x *phases.Examined) { x.Seen.Module = false },
		"warn others comin.service":     func(x *phases.Examined) { x.Seen.Foreign = []string{"comin.service"} },
		"fail space another kernel":     func(x *phases.Examined) { x.Seen.Space[0].Free = 59 << 20 },
		"warn space /nix: 4.0 GiB":      func(x *phases.Examined) { x.Seen.Space[1].Free = 4 << 30 },
		"fail space /nix: 4.0 MiB":      func(x *phases.Examined) { x.Seen.Space[1].Free = 4 << 20 },
		"fail lock anna@laptop":         func(x *phases.Examined) { x.Seen.Holder = &agent.Holder{Run: "r1", Owner: "anna@laptop"} },
		"warn clock off by -7s":         func(x *phases.Examined) { x.Skew = -7 * time.Second },
		"warn reboot kernel, initrd of": func(x *phases.Examined) { x.Seen.Pending = []string{"kernel", "initrd"} },
	} {
		x := healthy(t)
		spoil(&x)
		var said []string
		for _, c := range checkup(x) {
			if c.State != view.CheckOK {
				said = append(said, c.State+" "+c.Check+" "+c.Text)
				if len(c.Hint) == 0 {
					t.Errorf("%s: nothing mends it", want)
				}
			}
		}
		state, rest, _ := strings.Cut(want, " ")
		text := strings.Join(said, "\n")
		if want == "" && text != "" || want != "" && len(said) != 1 || !strings.HasPrefix(text, state) {
			t.Errorf("%s: %s", want, text)
		}
		for _, word := range strings.Fields(rest) {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %s", want, text)
			}
		}
	}
}

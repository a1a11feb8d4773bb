package validate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
	"github.com/hbohlen/deployer/phases/phasetest"
	"github.com/hbohlen/deployer/runbooks"
)

var on = phases.On{Lane: "h1"}

func names(steps []phases.Step) (n []string) {
	for _, s := range steps {
		n = append(n, s.Name())
	}
	return n
}

func TestCompile(t *testing.T) {
	web := &runbooks.Check{Name: "web", Kind: "unit", Unit: "web.service"}
	started := &runbooks.Check{Name: "backup", Kind: "unit", Unit: "backup.service", Start: true}
	v := &runbooks.Phase{Kind: "validate", Validate: &runbooks.Validate{Checks: []*runbooks.Check{web, started}}}
	in := &phases.Inputs{Runbook: &runbooks.Runbook{Phases: []*runbooks.Phase{
		{Switch: &runbooks.Switch{Host: "h1"}}, {Switch: &runbooks.Switch{Host: "h2"}}, v,
	}}}
	steps, err := Compile(in, v)
	want := []string{"contact", "web", "backup", "profile", "boot", "confirm", "contact", "web", "backup", "profile", "boot", "confirm"}
	if err != nil || !slices.Equal(names(steps), want) {
		t.Errorf("steps %q, %v", names(steps), err)
	}
	if phases.HostOf(steps[0]) != "h1" || phases.HostOf(steps[9]) != "h2" {
		t.Error("not one host after the other")
	}
	if phases.ClassOf(steps[1]) != phases.Read || phases.ClassOf(steps[2]) != phases.Idempotent || phases.ClassOf(steps[3]) != phases.Probe {
		t.Errorf("classes %s %s %s", phases.ClassOf(steps[1]), phases.ClassOf(steps[2]), phases.ClassOf(steps[3]))
	}
	if in.Validation() != v.Validate {
		t.Error("staging does not share the checks")
	}
}

// A check that is asked twice in a phase makes two steps that can be told apart.
func TestChecksOfOneNameAreNumbered(t *testing.T) {
	disk := &runbooks.Check{Name: "disk"}
	steps := Checks("h1", Steps("h1", []*runbooks.Check{disk, disk}), []*runbooks.Check{disk, {Name: "web"}, {Name: "boot"}})
	want := []string{"contact", "disk", "disk-2", "profile", "boot", "confirm", "disk-3", "web", "boot-2"}
	if !slices.Equal(names(steps), want) {
		t.Errorf("steps %q, want %q", names(steps), want)
	}
	if disk.Name != "disk" {
		t.Error("the runbook was changed")
	}
}

func TestDescribe(t *testing.T) {
	for want, c := range map[string]*runbooks.Check{
		"unit web.service, within 30s":                    {Kind: "unit", Unit: "web.service"},
		"disk /, used_percent < 85, within 30s":           {Kind: "disk", Disk: "/", When: "used_percent < 85"},
		"http http://h/, 3 times in a row, within 30s":    {Kind: "http", HTTP: "http://h/", Successes: 3},
		"command systemctl is-system-running, within 30s": {Kind: "command", Command: []string{"systemctl", "is-system-running"}},
		"subvolumes /a, /b, within 30s":                   {Kind: "subvolumes", Subvols: []string{"/a", "/b"}},
		"tcp h:22, within 30s":                            {Kind: "tcp", TCP: "h:22"},
		"file /etc/a, within 30s":                         {Kind: "file", File: "/etc/a"},
		"mount /boot, within 30s":                         {Kind: "mount", Mount: "/boot"},
		"snapshot /s, within 30s":                         {Kind: "snapshot", Snapshot: "/s"},
	} {
		c.Within = 30 * time.Second
		if got := Describe(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// answers makes a machine whose probes answer in turn, the last one for ever.
func answers(t *testing.T, list ...any) (*phases.Env, *[]agent.Probe) {
	m := phasetest.Make(t, "h1")
	var asked []agent.Probe
	m.Handle(agent.OpProbe, func(args json.RawMessage) (any, error) {
		var p agent.Probe
		_ = json.Unmarshal(args, &p)
		asked = append(asked, p)
		next := list[0]
		if len(list) > 1 {
			list = list[1:]
		}
		switch a := next.(type) {
		case time.Duration:
			time.Sleep(a)
			return agent.Sample{OK: true, Detail: "slow"}, nil
		case error:
			if errors.Is(a, errGone) {
				m.Away(errors.New("for a moment"))
				m.Away(nil)
				return nil, phasetest.ErrDie
			}
			return nil, a
		}
		return next, nil
	})
	return m.Env(), &asked
}

var (
	errGone = errors.New("the link goes")
	well    = agent.Sample{OK: true, Detail: "active", Values: map[string]float64{"code": 0}}
	ill     = agent.Sample{Detail: "inactive", Output: "a\nb\n"}
)

func TestCheck(t *testing.T) {
	check := runbooks.Check{Kind: "command", Command: []string{"ask"}, Within: 30 * time.Second, Interval: 5 * time.Second, Timeout: 10 * time.Second}
	with := func(change func(c *runbooks.Check)) *runbooks.Check { c := check; change(&c); return &c }
	for _, tt := range []struct {
		name  string
		conf  *runbooks.Check
		list  []any
		tries int
		took  time.Duration
		want  string // the error
	}{
		{"well at once", &check, []any{well}, 1, 0, ""},
		{"well in the end", &check, []any{ill, ill, well}, 3, 10 * time.Second, ""},
		{"never", &check, []any{ill}, 6, 25 * time.Second, "inactive (command ask; 6 tries in 30s)"},
		{"at the last moment", &check, []any{ill, ill, ill, ill, ill, well}, 6, 25 * time.Second, ""},
		{"once only, for lack of time", with(func(c *runbooks.Check) { c.Within = time.Second }), []any{ill}, 1, 0, "inactive (command ask; 1 tries in 1s)"},
		{"three in a row", with(func(c *runbooks.Check) { c.Successes = 3 }), []any{well}, 3, 10 * time.Second, ""},
		{"three in a row, from the start again", with(func(c *runbooks.Check) { c.Successes = 3 }), []any{well, well, ill, well}, 6, 25 * time.Second, ""},
		{"three are not had", with(func(c *runbooks.Check) { c.Successes = 3 }), []any{well, well, ill, well, well, ill}, 6, 25 * time.Second, "inactive (command ask; 6 tries in 30s)"},
		{"slow looks count", &check, []any{10 * time.Second}, 1, 10 * time.Second, ""},
		{"the link goes, a new one is made", &check, []any{errGone, well}, 2, 5 * time.Second, ""},
		{"the condition holds", with(func(c *runbooks.Check) { c.When = "code == 0" }), []any{well}, 1, 0, ""},
		{"the condition does not hold", with(func(c *runbooks.Check) { c.When = "code == 3"; c.Within = time.Second }), []any{well}, 1, 0, "active, want code == 3 (command ask; 1 tries in 1s)"},
		{"what is ill is not made well by a condition", with(func(c *runbooks.Check) { c.When = "code == 0"; c.Within = time.Second }),
			[]any{agent.Sample{Detail: "exit 0, killed", Values: map[string]float64{"code": 0}}}, 1, 0, "exit 0, killed (command ask; 1 tries in 1s)"},
		{"the agent refuses", &check, []any{&agent.Error{Code: "invalid", Message: "unknown kind"}}, 1, 0, "unknown kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				env, asked := answers(t, tt.list...)
				start := time.Now()
				err := NewCheck("h1", tt.conf).Do(t.Context(), env)
				if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && got != tt.want {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if len(*asked) != tt.tries || time.Since(start) != tt.took {
					t.Errorf("%d tries in %s, want %d in %s", len(*asked), time.Since(start), tt.tries, tt.took)
				}
			})
		})
	}
}

// The last words of what failed are for the person, not for the journal.
func TestCheckShowsOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, _ := answers(t, agent.Sample{Detail: "exit 1", Output: strings.Repeat("x\n", 30) + "last\n"})
		f := phases.AsFailure(NewCheck("h1", &runbooks.Check{Kind: "command"}).Do(t.Context(), env))
		if len(f.Output) != 20 || f.Output[19] != "last" || strings.Contains(f.Error(), "last") {
			t.Errorf("got %+v", f)
		}
		if s := brief(agent.Sample{Detail: "d", Output: "secret"}); s.Output != "" || s.Detail != "d" {
			t.Errorf("facts are %+v", s)
		}
	})
}

// A single look does not outlast the check's deadline.
func TestCheckBoundsEveryLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, asked := answers(t, ill)
		c := &runbooks.Check{Kind: "unit", Unit: "u", Within: 12 * time.Second, Interval: 5 * time.Second, Timeout: 10 * time.Second}
		_ = NewCheck("h1", c).Do(t.Context(), env)
		var got []time.Duration
		for _, p := range *asked {
			got = append(got, p.Timeout)
		}
		if want := []time.Duration{10 * time.Second, 7 * time.Second, 2 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("looks of %v, want %v", got, want)
		}
	})
}

func TestCheckEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, _ := answers(t, ill)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		err := NewCheck("h1", &runbooks.Check{Kind: "unit", Within: time.Hour, Interval: 5 * time.Second}).Do(ctx, env)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// Promise 11: no data and NaN never pass, whatever the condition makes of them.
func TestPromise11NoDataNeverPasses(t *testing.T) {
	for name, values := range map[string]map[string]float64{"nothing": nil, "another": {"free_bytes": 1}, "NaN": {"used_percent": math.NaN()}, "infinite": {"used_percent": math.Inf(1)}} {
		for _, when := range []string{"used_percent < 85", "not (used_percent > 85)", "used_percent != 1", "used_percent < 85 || used_percent > 90"} {
			c := &runbooks.Check{Kind: "disk", Disk: "/", When: when}
			s, err := condition(c, agent.Sample{OK: true, Detail: "seen", Values: values})
			if err != nil || s.OK || s.Detail != "no data for used_percent" {
				t.Errorf("%s, %s: %+v, %v", name, when, s, err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // an answer without content is no pass either
		env, _ := answers(t, agent.Sample{})
		if err := NewCheck("h1", &runbooks.Check{Kind: "unit", Unit: "u"}).Do(t.Context(), env); err == nil {
			t.Error("an empty answer passes")
		}
	})
}

func TestFromController(t *testing.T) {
	for _, tt := range []struct {
		address string
		c       runbooks.Check
		want    bool
	}{
		{"h1.example:22", runbooks.Check{Kind: "http", HTTP: "https://h1.example/healthz"}, true},
		{"h1.example", runbooks.Check{Kind: "http", HTTP: "https://h1.example:8443/"}, true},
		{"h1.example", runbooks.Check{Kind: "http", HTTP: "http://localhost/"}, false},
		{"h1.example", runbooks.Check{Kind: "http", HTTP: "http://h1.example.net/"}, false},
		{"h1.example", runbooks.Check{Kind: "tcp", TCP: "h1.example:443"}, true},
		{"h1.example", runbooks.Check{Kind: "tcp", TCP: "127.0.0.1:443"}, false},
		{"h1.example", runbooks.Check{Kind: "unit", Unit: "h1.example"}, false},
		{"2001:db8::1", runbooks.Check{Kind: "http", HTTP: "http://[2001:db8::1]/"}, true},
		{"[2001:db8::1]:22", runbooks.Check{Kind: "tcp", TCP: "[2001:db8::1]:80"}, true},
		{"[2001:db8::1]", runbooks.Check{Kind: "tcp", TCP: "[2001:db8::1]:80"}, true},
		{"h1.example", runbooks.Check{Kind: "http", HTTP: "http://h1.example/", From: "host"}, false},
		{"h1.example", runbooks.Check{Kind: "http", HTTP: "http://localhost/", From: "controller"}, true},
	} {
		l := phases.NewLane(&runbooks.Host{Name: "h1", Address: tt.address}, nil)
		if got := fromController(l, &tt.c); got != tt.want {
			t.Errorf("%s of %s: %t", tt.c.HTTP+tt.c.TCP, tt.address, got)
		}
	}
}

func TestABackupIsAsOldAsTheOldestOfItsNewestCopies(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	at := func(source string, age time.Duration, problem string) agent.Copy {
		return agent.Copy{Snapshot: agent.Snapshot{Source: source, Created: now.Add(-age), Path: "/s/" + now.Add(-age).Format("15h04") + "-backup"}, Problem: problem}
	}
	both := []agent.Copy{at("/a", 30*time.Hour, ""), at("/b", 5*time.Hour, ""), at("/a", 3*time.Hour, "")}
	for name, tt := range map[string]struct {
		copies []agent.Copy
		dial   error
		maxAge time.Duration
		when   string
		want   string // of the failure
	}{
		"young enough":      {copies: both, maxAge: 6 * time.Hour, when: "age_seconds == 5 * 3600"},
		"too old":           {copies: both, maxAge: 4 * time.Hour, want: "the newest copy of /b on vault:/srv is 5h0m0s old, want at most 4h0m0s"},
		"not as wanted":     {copies: both, when: "age_seconds < 60", want: "want age_seconds < 60"},
		"no copy":           {copies: both[:1], want: "no complete copy of /b of h1"},
		"none that is good": {copies: append(both[:2:2], at("/b", time.Hour, "changed"), at("/a", time.Hour, "changed")), maxAge: 6 * time.Hour, want: "the newest copy of /a on vault:/srv"},
		"clock ahead":       {copies: []agent.Copy{at("/a", -time.Hour, ""), at("/b", -time.Minute, "")}, maxAge: time.Hour, when: "age_seconds == 0"},
		"one from ahead":    {copies: []agent.Copy{at("/b", 5*time.Hour, ""), at("/a", -time.Hour, "")}, maxAge: time.Hour, want: "the newest copy of /b on vault:/srv is 5h0m0s old"},
		"out of reach":      {dial: &host.Error{Kind: host.Timeout, Host: "vault", Err: errors.New("no answer")}, want: "cannot reach vault: no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			m, vault := phasetest.Make(t, "h1"), phasetest.Make(t, "vault")
			vault.Fake.On(hosttest.Prefix("sh", "-s")).Out("deployer-facts=1\nhostname=vault\nuname=6.6 x86_64\nuser=root\nuid=0\nlauncher=1\nend=1\n")
			vault.Handle(agent.OpCopies, func(json.RawMessage) (any, error) { return tt.copies, nil })
			env := m.Env()
			env.Now = func() time.Time { return now }
			env.Project.Backup = &runbooks.BackupTo{OffHost: &runbooks.OffHost{Address: "vault", Path: "/srv", Subvolumes: []string{"/a", "/b"}}}
			env.Dial = func(context.Context, *runbooks.Host) (host.Host, error) { return vault.Fake, tt.dial }
			err := NewCheck("h1", &runbooks.Check{Kind: "backup", Backup: "off-host", MaxAge: tt.maxAge, When: tt.when, Within: 30 * time.Second, Successes: 2, Interval: time.Second}).Do(t.Context(), env)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || phases.AsFailure(err).Hint[0] != "deployer snapshots send --host h1"):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// From the controller means from here: no host is asked.
func TestCheckFromController(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer srv.Close()
	l := phases.NewLane(&runbooks.Host{Name: "h1", Address: "h1"}, nil)
	c := &runbooks.Check{Kind: "http", HTTP: srv.URL, From: "controller", Status: http.StatusTeapot, When: "status == 418", Timeout: 5 * time.Second}
	if s, err := Look(t.Context(), &phases.Env{Lane: l}, c, time.Second); err != nil || !s.OK {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestContact(t *testing.T) {
	refused := &host.Error{Kind: host.Refused, Host: "h1", Err: errors.New("not yet")}
	for _, tt := range []struct {
		name   string
		after  time.Duration // until logins work; 0: from the start
		kind   host.Kind
		system string
		took   time.Duration
		want   string
	}{
		{"at once", 0, "", phasetest.New, 0, ""},
		{"sshd takes a while", 9500 * time.Millisecond, host.Refused, phasetest.New, 10 * time.Second, ""},
		{"never", time.Hour, host.Refused, phasetest.New, 20 * time.Second, "not yet"},
		{"denied is not repeated", time.Hour, host.Denied, phasetest.New, 0, "not yet"},
		{"the wrong system", 0, "", phasetest.Old, 0, "the host runs 0000000…-nixos-system-old, want 0000000…-nixos-system-new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				m.With(func(w *phasetest.World) { w.Facts.System = tt.system })
				if tt.after > 0 {
					e := *refused
					e.Kind = tt.kind
					m.Fake.Unreachable(&e)
					timer := time.AfterFunc(tt.after, func() { m.Fake.Unreachable(nil) })
					defer timer.Stop()
				}
				start := time.Now()
				err := contact{on}.Do(t.Context(), env)
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if got := time.Since(start); got.Round(time.Second) != tt.took {
					t.Errorf("took %s, want %s", got, tt.took)
				}
			})
		})
	}
}

// Nix gives the number after the highest one, or the highest one itself if that
// has the path already: three histories.
func TestNextGeneration(t *testing.T) {
	const older = "/nix/store/older"
	for _, tt := range []struct {
		name    string
		current int
		list    []agent.Generation
		number  int
		created bool
	}{
		{"forward only", 7, []agent.Generation{{Number: 6, System: older}, {Number: 7, System: phasetest.Old}}, 8, true},
		{"after a rollback", 7, []agent.Generation{{Number: 7, System: phasetest.Old}, {Number: 9, System: older}}, 10, true},
		{"rolled back from it", 7, []agent.Generation{{Number: 9, System: phasetest.New}, {Number: 7, System: phasetest.Old}}, 9, false},
		{"an old one has the path", 7, []agent.Generation{{Number: 3, System: phasetest.New}, {Number: 7, System: phasetest.Old}}, 8, true},
		{"none at all", 0, nil, 1, true},
	} {
		env := phasetest.Make(t, "h1").Env()
		env.Lane.Before = agent.Facts{System: phasetest.Old, Profile: agent.Profile{Generation: tt.current, System: phasetest.Old, Generations: tt.list}}
		number, created := next(env.Lane)
		if number != tt.number || created != tt.created {
			t.Errorf("%s: %d %t, want %d %t", tt.name, number, created, tt.number, tt.created)
		}
		ops, err := profile{on}.Undo(t.Context(), env)
		want := agent.Operation{Op: agent.DoProfile, Profile: agent.SystemProfile, Generation: tt.current, System: phasetest.Old}
		if tt.created {
			want.Drop, want.DropSystem = tt.number, phasetest.New
		}
		got, _ := json.Marshal(ops)
		exp, _ := json.Marshal([]agent.Operation{want})
		if err != nil || string(got) != string(exp) {
			t.Errorf("%s: undo %s, want %s", tt.name, got, exp)
		}
		if c, _ := (profile{on}).Plan(t.Context(), env); c.Text != fmt.Sprintf("commit: generation %d → %d", tt.current, tt.number) {
			t.Errorf("%s: plan says %s", tt.name, c.Text)
		}
	}
}

func TestCommitStepsAreSkippedWhereTheyAreDone(t *testing.T) {
	env := phasetest.Make(t, "h1").Env()
	l := env.Lane
	for _, s := range []phases.Skipper{profile{on}, boot{on}} {
		if reason, err := s.Skip(t.Context(), env); reason != "" || err != nil {
			t.Errorf("%T skipped: %s %v", s, reason, err)
		}
	}
	l.Seen.Profile.System, l.Seen.Boot.System = phasetest.New, phasetest.New
	if a, _ := (profile{on}).Skip(t.Context(), env); a != "the profile has it already" {
		t.Errorf("profile: %q", a)
	}
	if a, _ := (boot{on}).Skip(t.Context(), env); a != "it is the boot default already" {
		t.Errorf("boot: %q", a)
	}
}

func TestProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := phasetest.Make(t, "h1")
		env := m.Env()
		if err := (profile{on}).Do(t.Context(), env); err == nil || !strings.Contains(err.Error(), "not what was validated") {
			t.Errorf("a host that was rebooted is committed: %v", err)
		}
		m.With(func(w *phasetest.World) { w.Facts.System = phasetest.New })
		if err := (profile{on}).Do(t.Context(), env); err != nil || m.World().Facts.Profile.System != phasetest.New {
			t.Errorf("%v: %+v", err, m.World().Facts.Profile)
		}
		m.Handle(agent.OpApply, func(json.RawMessage) (any, error) {
			return agent.Outcome{State: "failed", Message: "the profile is locked", Hint: []string{"nix-env --list-generations"}}, nil
		})
		if f := phases.AsFailure(profile{on}.Do(t.Context(), env)); f.Error() != "the profile is locked" || len(f.Hint) != 1 {
			t.Errorf("got %+v", f)
		}
		m.With(func(w *phasetest.World) {
			w.Facts.Profile = agent.Profile{Generation: 9, System: "/nix/store/of-somebody-else"}
		})
		f := phases.AsFailure(profile{on}.Do(t.Context(), env))
		if f.Exit != phases.ExitWaiting || !strings.Contains(f.Error(), "somebody else changed the profile") {
			t.Errorf("a foreign generation does not hold the run: %+v", f)
		}
	})
}

// The boot loader's own files are believed, not an exit code.
func TestBoot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   int
		change func(f *agent.Facts)
		want   string
	}{
		{"written", 0, func(*agent.Facts) {}, ""},
		{"exit 1", 1, func(*agent.Facts) {}, "the boot loader could not be written (exit code 1)"},
		{"exit 0, but it still starts the old", 0, func(f *agent.Facts) { f.Boot.System = phasetest.Old }, "the boot default is 0000000…-nixos-system-old after the commit"},
		{"the profile moved", 0, func(f *agent.Facts) { f.Profile.System = phasetest.Old }, "the profile is 0000000…-nixos-system-old after the commit"},
		{"the system moved", 0, func(f *agent.Facts) { f.System = phasetest.Old }, "the host runs 0000000…-nixos-system-old after the commit"},
		{"no boot loader that we know", 0, func(f *agent.Facts) { f.Boot = agent.Boot{} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := phasetest.Make(t, "h1")
				env := m.Env()
				m.Handle(agent.OpJobStart, func(args json.RawMessage) (any, error) {
					m.With(func(w *phasetest.World) {
						w.Facts.System, w.Facts.Profile.System, w.Facts.Boot.System = phasetest.New, phasetest.New, phasetest.New
						tt.change(&w.Facts)
					})
					if !strings.Contains(string(args), phasetest.New+`/bin/switch-to-configuration","boot"`) {
						t.Errorf("started %s", args)
					}
					return agent.Receipt{State: "ended", Code: tt.code}, nil
				})
				err := boot{on}.Do(t.Context(), env)
				if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && got != tt.want {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			})
		})
	}
}

func TestUndoOfBoot(t *testing.T) {
	env := phasetest.Make(t, "h1").Env()
	ops, _ := boot{on}.Undo(t.Context(), env)
	if len(ops) != 1 || ops[0].System != phasetest.Old || *ops[0].Boot != env.Lane.Seen.Boot {
		t.Errorf("undo %+v", ops)
	}
	env.Lane.Seen.Boot = agent.Boot{} // no loader was found: what the profile has is what it would write
	if ops, _ := (boot{on}).Undo(t.Context(), env); ops[0].System != phasetest.Old {
		t.Errorf("undo %+v", ops)
	}
}

// dying refuses once, and then is in the middle of a look when the time is over.
type dying struct {
	host.Host
	asked *int
}

func (d dying) Fresh(ctx context.Context) (host.Host, error) {
	if *d.asked++; *d.asked == 1 {
		return nil, &host.Error{Kind: host.Refused, Host: "h1", Err: errors.New("nobody listens there")}
	}
	<-ctx.Done()
	return nil, &host.Error{Kind: host.Unknown, Host: "h1", Err: errors.New("ssh cannot read its configuration")}
}

// When sshd was gone, a person was told that "ssh cannot read its configuration":
// the end of contact's time had killed `ssh -G`.
func TestContactNamesTheCauseNotTheEndOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := phasetest.Make(t, "h1").Env()
		env.Lane.Host = dying{env.Lane.Host, new(int)}
		if err := (contact{on}).Do(t.Context(), env); err == nil || !strings.Contains(err.Error(), "nobody listens there") {
			t.Errorf("got %v", err)
		}
	})
}

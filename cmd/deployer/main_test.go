package main_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hbohlen/deployer/cmd/internal/cli"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/state"
)

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

var updateScripts = flag.Bool("update", false, "write what scripts compare with anew")

// TestMain makes this binary deployer as well: under its name for scripts, and
// as the plugin and the agent that deployer starts itself as.
func TestMain(m *testing.M) {
	switch {
	case digest.MatchString(filepath.Base(os.Args[0])):
		os.Exit(agent.Main(os.Args[1:]))
	case len(os.Args) > 1 && (os.Args[1] == "plugin-serve" || os.Args[1] == "agent"):
		os.Exit(cli.Main(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"deployer": func() { os.Exit(cli.Main(os.Args[1:])) },
	})
}

// TestScript types commands on the real main. No host is ever contacted.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *updateScripts,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".state"))
			env.Setenv("USER", "anna")
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "bait": bait, "untouched": untouched, "writerun": writeRun, "json": isJSON,
		},
	})
}

// exits runs a command and wants its exit code: `exits 10 deployer lint`.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit %s, not %s: %s\n%s%s", got, args[0], strings.Join(args[1:], " "), ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// bait listens where a host could be; its port replaces PORT in a file. A
// connection fails the script at `untouched`.
func bait(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	caught := filepath.Join(ts.Getenv("WORK"), ".caught")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = os.WriteFile(caught, nil, 0o600)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, file := range args {
		b := ts.ReadFile(file)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(strings.ReplaceAll(b, "PORT", port)), 0o600))
	}
}

// untouched wants that nobody connected to the bait, and no run was recorded.
func untouched(ts *testscript.TestScript, _ bool, _ []string) {
	time.Sleep(20 * time.Millisecond)
	if _, err := os.Stat(filepath.Join(ts.Getenv("WORK"), ".caught")); err == nil {
		ts.Fatalf("a host was contacted")
	}
	runs, _ := filepath.Glob(filepath.Join(ts.Getenv("XDG_STATE_HOME"), "deployer", "*", "*"))
	if len(runs) > 0 {
		ts.Fatalf("left behind: %s", runs)
	}
}

// writeRun writes a run of the project in this folder, as `good`, `failed`,
// `interrupted`, `restoring` or `restored`, or only its folder, `unbegun`; its id is in $RUN.
func writeRun(ts *testscript.TestScript, _ bool, args []string) {
	old := os.Getenv("XDG_STATE_HOME")
	defer os.Setenv("XDG_STATE_HOME", old)
	os.Setenv("XDG_STATE_HOME", ts.Getenv("XDG_STATE_HOME"))
	dir, err := filepath.EvalSymlinks(ts.MkAbs("."))
	ts.Check(err)
	store, err := state.OpenStore(state.ProjectKey(dir))
	ts.Check(err)
	d, err := store.NewRun()
	ts.Check(err)
	ts.Setenv("RUN", d.ID)
	if args[0] == "unbegun" {
		return
	}
	j, err := state.Create(d.Path, nil)
	ts.Check(err)
	for _, rec := range story(args[0]) {
		rec.Run = d.ID
		ts.Check(j.Append(&rec))
	}
	ts.Check(j.Close())
	ts.Check(os.WriteFile(d.LogPath(), []byte("{\"msg\":\"first\"}\n\x1b[31mred\x1b[0m\n"), 0o600))
	ts.Check(os.MkdirAll(d.OutputDir(), 0o700))
	ts.Check(os.WriteFile(filepath.Join(d.OutputDir(), "switch-test@production-output.log"), []byte("starting the following units: app.service\n"), 0o600))
}

func story(kind string) []state.Record {
	const healthy = "validate/healthy@production"
	rec := func(k state.Kind, step, host, reason string, elapsed float64, data string) state.Record {
		phase, _, _ := strings.Cut(step, "/")
		r := state.Record{Time: time.Now().UTC(), Kind: k, Phase: phase, Step: step, Host: host, Reason: reason, Elapsed: elapsed}
		if data != "" {
			r.Data = []byte(data)
		}
		return r
	}
	recs := []state.Record{
		rec(state.RunCreated, "", "", "", 0, `{"type":"deploy","runbook":"production","hosts":["production"],"by":"anna@laptop","reason":"OPS-1","version":"test"}`),
		rec(state.StepIntent, "switch/test@production", "production", "", 0, `{"op":"1","class":"probe"}`),
		rec(state.StepDone, "switch/test@production", "production", "", 4.2, ""),
	}
	end := `{"outcome":%q,"exit":%d,"lanes":{"production":%q},"systems":{"production":"/nix/store/q7pxk3yqvmsz2adwlgcn0rfhb1i6j485-nixos-system-web-25.11"}}`
	switch kind {
	case "restoring", "restored": // of data
		undo := "undo/1-restore-data@production"
		recs = []state.Record{
			rec(state.RunCreated, "", "", "", 0, `{"type":"rollback","runbook":"snapshots restore","hosts":["production"],"by":"anna@laptop","version":"test"}`),
			rec(state.UndoIntent, undo, "production", "", 0, ""),
		}
		if kind == "restored" {
			recs = append(recs, rec(state.UndoDone, undo, "production", "", 1, `{"op":{"op":"restore-data"},"state":"done","kept":["77dd1be0-c3f1-4242-8a8b-000000000001"]}`),
				rec(state.RunFinished, "", "", "", 0, fmt.Sprintf(end, "rolled-back", 0, "restored")))
		}
	case "good":
		recs = append(recs, rec(state.RunFinished, "", "", "", 0, fmt.Sprintf(end, "succeeded", 0, "committed")))
	case "failed":
		recs = append(recs, rec(state.StepFailed, healthy, "production", "503, want 200", 60, ""),
			rec(state.RunFinished, "", "", healthy+": 503, want 200", 0, fmt.Sprintf(end, "rolled-back", 20, "restored")))
	}
	return recs
}

// isJSON wants a file, or stdout, to be one JSON value or one a line.
func isJSON(ts *testscript.TestScript, _ bool, args []string) {
	if err := oneOrMore(ts.ReadFile(args[0])); err != nil {
		ts.Fatalf("%v:\n%s", err, ts.ReadFile(args[0]))
	}
}

func oneOrMore(text string) error {
	dec := json.NewDecoder(strings.NewReader(text))
	for n := 0; ; n++ {
		var v any
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

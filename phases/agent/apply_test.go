package agent

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	bad := []string{"bad.service"}
	for name, c := range map[string]struct {
		exit Exit
		want string
	}{
		"0":                          {Exit{}, "ok"},
		"0 with a unit failing now":  {Exit{After: bad}, "fail"},
		"4 failing before":           {Exit{Code: 4, Before: bad, After: bad}, "ok"},
		"4 allowed":                  {Exit{Code: 4, After: bad, Allow: bad}, "ok"},
		"4 newly failing":            {Exit{Code: 4, After: bad}, "fail"},
		"4 only named in the output": {Exit{Code: 4, Output: "x\nwarning: the following units failed: bad.service, other.service\n", Before: bad}, "fail"},
		"4 named but failing before": {Exit{Code: 4, Output: "warning: the following units failed: bad.service\n", Before: bad}, "ok"},
		"4 deployer's own unit":      {Exit{Code: 4, After: []string{"deployer-r1-a-1.service"}}, "ok"},
		"2":                          {Exit{Code: 2, Current: true}, "fail"},
		"1":                          {Exit{Code: 1}, "fail"},
		"1 lock":                     {Exit{Code: 1, Output: "Could not acquire lock\n"}, "retry"},
		"11":                         {Exit{Code: 11}, "retry"},
		"1 inhibitors":               {Exit{Code: 1, Output: "There are changes to critical components of the system:\n\ndbus-implementation : dbus -> broker\n"}, "reboot"},
		"3":                          {Exit{Code: 3}, "fail"},
		"100":                        {Exit{Code: 100}, "reboot"},
		"101 done":                   {Exit{Code: 101, Current: true}, "ok"},
		"101 not done":               {Exit{Code: 101}, "unknown"},
		"101 with failed units":      {Exit{Code: 101, Current: true, After: bad}, "fail"},
		"255":                        {Exit{Code: 255, Current: true}, "unknown"},
		"signal":                     {Exit{Code: 137, Signal: "KILL"}, "unknown"},
		"42":                         {Exit{Code: 42}, "fail"},
	} {
		v := Judge(c.exit)
		var is []string
		for word, set := range map[string]bool{"ok": v.OK, "retry": v.Retry, "reboot": v.Reboot, "fail": v.Fail, "unknown": v.Unknown} {
			if set {
				is = append(is, word)
			}
		}
		if len(is) != 1 || is[0] != c.want || !v.OK && v.Message == "" {
			t.Errorf("%s: %v %+v, want %s", name, is, v, c.want)
		}
	}
	if v := Judge(Exit{Code: 1, Output: "switchInhibitors\nkernel : a -> b\n"}); !strings.Contains(v.Message, "kernel : a -> b") {
		t.Errorf("the inhibitor is not named: %s", v.Message)
	}
}

// direct makes the agent do operations itself, as inside a job.
func direct(h *host) *host {
	h.direct = true
	return h
}

func (h *host) do(op Operation) Outcome {
	h.t.Helper()
	out, err := h.applyNow(h.t.Context(), op)
	must(h.t, err)
	return out
}

func (h *host) want(op Operation, state string) Outcome {
	h.t.Helper()
	out := h.do(op)
	if out.State != state || len(out.Hint) == 0 {
		h.t.Fatalf("%s: %s (%d) %s, want %s", op.Op, out.State, out.Code, out.Message, state)
	}
	return out
}

func TestActivationIsReadBack(t *testing.T) {
	h := direct(newHost(t))
	h.want(Operation{Op: DoActivate, System: newTop, Action: "test"}, opDone)
	if h.read("log") != "bbb-new test 0\n" {
		t.Errorf("log %q", h.read("log"))
	}
	h.file("behave-aaa-old", "exit 0")
	out := h.want(Operation{Op: DoActivate, System: oldTop, Action: "test"}, opFailed)
	if !strings.Contains(out.Message, "the running system is "+newTop) {
		t.Error(out.Message)
	}
}

func TestActivationJudgesNewFailuresOnly(t *testing.T) {
	h := direct(newHost(t))
	h.file("behave-bbb-new", "ln -sfn $top $d/run/current-system; echo 'warning: the following units failed: bad.service' >&2; exit 4")
	h.want(Operation{Op: DoActivate, System: newTop, Action: "test"}, opDone)
	h.file("behave-bbb-new", "ln -sfn $top $d/run/current-system; echo 'app.service loaded failed failed x' >> $d/units; exit 4")
	out := h.want(Operation{Op: DoActivate, System: newTop, Action: "test"}, opFailed)
	if out.Code != 4 || !strings.Contains(out.Message, "app.service") || strings.Contains(out.Message, "bad.service") {
		t.Error(out)
	}
	h.file("units", "")
	h.want(Operation{Op: DoActivate, System: newTop, Action: "test", Allow: []string{"app.service"}}, opDone)
}

func TestActivationWaitsForTheLock(t *testing.T) {
	h := direct(newHost(t))
	h.file("behave-bbb-new", "[ -e $d/second ] || { touch $d/second; echo Could not acquire lock >&2; exit 1; }")
	h.want(Operation{Op: DoActivate, System: newTop, Action: "test"}, opDone)
}

func TestActivationRefusesWhatIsNoSystem(t *testing.T) {
	h := direct(newHost(t))
	for _, op := range []Operation{
		{Op: DoActivate, System: "/nix/store/ccc-gone", Action: "test"}, {Op: DoActivate, System: "/tmp/x", Action: "test"},
		{Op: DoActivate, System: "/nix/store/../../tmp/x", Action: "test"}, {Op: DoActivate, System: newTop, Action: "--rollback"},
		{Op: DoActivate, System: newTop, Special: "../x", Action: "test"}, {Op: DoActivate, Action: "test"},
	} {
		h.want(op, opFailed)
	}
	if h.read("log") != "" {
		t.Error("something ran: ", h.read("log"))
	}
}

func TestActivationOfASpecialisation(t *testing.T) {
	h := direct(newHost(t))
	h.system("/nix/store/ddd-dark")
	h.link(newTop+"/specialisation/dark", "/nix/store/ddd-dark")
	h.link("nix/var/nix/profiles/system-2-link", newTop)
	h.want(Operation{Op: DoActivate, System: newTop, Special: "dark", Action: "test"}, opDone)
	f, err := h.facts(t.Context(), FactsArgs{})
	if err != nil || f.Specialisation != "dark" || f.System != "/nix/store/ddd-dark" {
		t.Errorf("%q %s %v", f.Specialisation, f.System, err)
	}
}

func TestProfileIsSetByNumberOrPathNeverByRollback(t *testing.T) {
	h := direct(newHost(t))
	h.want(Operation{Op: DoProfile, System: newTop}, opDone)
	h.want(Operation{Op: DoProfile, System: newTop}, opAlready)
	back := Operation{Op: DoProfile, System: oldTop, Generation: 1, Drop: 2, DropSystem: newTop}
	h.want(back, opDone)
	h.want(back, opAlready)
	if p := h.profile(SystemProfile); p.Generation != 1 || p.System != oldTop || len(p.Generations) != 1 {
		t.Errorf("%+v", p)
	}
	// The number belongs to another system by now: the path counts.
	h.link("nix/var/nix/profiles/system-2-link", oldTop)
	h.want(Operation{Op: DoProfile, System: newTop, Generation: 2, Drop: 1, DropSystem: newTop}, opDone)
	if p := h.profile(SystemProfile); p.System != newTop || p.at(1) != oldTop {
		t.Errorf("%+v", p)
	}
	log := h.read("log")
	if strings.Contains(log, "rollback") || !strings.Contains(log, "--switch-generation 1") || !strings.Contains(log, "--delete-generations 2") {
		t.Error(log)
	}
	h.want(Operation{Op: DoProfile, Generation: 77}, opFailed)
}

func TestBootDefaultIsLeftOrReadBack(t *testing.T) {
	h := direct(newHost(t))
	h.want(Operation{Op: DoBoot, System: oldTop}, opAlready)
	h.want(Operation{Op: DoBoot, Boot: &Boot{System: oldTop}}, opAlready)
	h.want(Operation{Op: DoBoot, System: newTop}, opDone)
	b, err := h.boot()
	if err != nil || b.System != newTop || b.Default != "nixos-generation-9.conf" {
		t.Errorf("%+v %v", b, err)
	}
	h.file("behave-aaa-old", "exit 0") // says it is done, and is not
	out := h.want(Operation{Op: DoBoot, System: oldTop}, opFailed)
	if !strings.Contains(out.Message, newTop) {
		t.Error(out.Message)
	}
}

func TestFileIsWrittenAsAWhole(t *testing.T) {
	h := direct(newHost(t))
	foo := sum([]byte("foo"))
	op := Operation{Op: DoWriteFile, Path: "/etc/a file", Digest: foo, Content: []byte("foo"), Mode: 0o640}
	h.want(op, opDone)
	h.want(op, opAlready)
	f, err := h.fileGet(t.Context(), FileRef{Path: "/etc/a file"})
	if err != nil || f.Digest != foo || f.Mode != 0o640 || string(f.Content) != "foo" {
		t.Errorf("%+v %v", f, err)
	}
	h.want(Operation{Op: DoWriteFile, Path: "/etc/a file", Digest: foo, Content: []byte("bar"), Mode: 0o600}, opFailed)
	h.file("etc/other", "other")
	h.link("etc/linked", "other")
	h.want(Operation{Op: DoWriteFile, Path: "/etc/linked", Digest: foo, Content: []byte("foo")}, opDone)
	for name, want := range map[string]string{"/etc/linked": foo, "/etc/other": sum([]byte("other"))} {
		if f, err := h.fileGet(t.Context(), FileRef{Path: name}); err != nil || f.Digest != want || f.Link != "" {
			t.Errorf("%+v %v", f, err)
		}
	}
	h.want(Operation{Op: DoWriteFile, Path: "/etc/a file"}, opDone)
	h.want(Operation{Op: DoWriteFile, Path: "/etc/a file"}, opAlready)
	_, err = h.fileGet(t.Context(), FileRef{Path: "/etc/os-release", Max: 3})
	isCode(t, err, "invalid")
}

// A file that a system took over as a link, and a link that it changed.
func TestLinkIsPutBack(t *testing.T) {
	h := direct(newHost(t))
	h.file("etc/real", "real")
	h.link("etc/linked", "real")
	f, err := h.fileGet(t.Context(), FileRef{Path: "/etc/linked"})
	if err != nil || f.Link != "real" || f.Target != "/etc/real" || f.Digest != sum([]byte("real")) {
		t.Errorf("%+v %v", f, err)
	}
	op := Operation{Op: DoWriteFile, Path: "/etc/linked", Link: f.Link}
	h.want(op, opAlready)
	must(t, os.Remove(h.path("etc/linked")))
	h.want(op, opDone)
	must(t, os.Remove(h.path("etc/linked")))
	h.file("etc/linked", "a file")
	h.want(op, opDone)
	if is, _ := os.Readlink(h.path("etc/linked")); is != f.Link {
		t.Error(is)
	}
	must(t, errors.Join(os.Remove(h.path("etc/linked")), os.Mkdir(h.path("etc/linked"), 0o755)))
	h.want(op, opFailed)
}

func TestUnitsAreStartedOnlyWhereTheyAreNot(t *testing.T) {
	h := direct(newHost(t))
	h.want(Operation{Op: DoUnits, Units: []string{"ok.service"}}, opAlready)
	out := h.want(Operation{Op: DoUnits, Units: []string{"ok.service", "app.service"}}, opDone)
	if out.Message != "started app.service" {
		t.Error(out.Message)
	}
	h.want(Operation{Op: DoUnits, Units: []string{"broken.service"}}, opFailed)
}

func TestPinsAreRootsUntilTheLaneCloses(t *testing.T) {
	h := newHost(t)
	for _, run := range []string{"r1", "r1-b"} {
		_, err := h.recipePut(t.Context(), Recipe{Run: run})
		must(t, err)
		_, err = h.pin(t.Context(), Pin{run, "old", oldTop})
		must(t, err)
	}
	if link, err := os.Readlink(h.path(gcroots + "/r1-old")); err != nil || link != oldTop {
		t.Error(link, err)
	}
	for _, outcome := range []string{"stuck", "committed"} {
		_, err := h.close(t.Context(), Closing{Run: "r1", Outcome: outcome})
		must(t, err)
		if !lexists(h.path(gcroots + "/r1-old")) {
			t.Error("a lane lost its pin: " + outcome)
		}
	}
	_, err := h.close(t.Context(), Closing{Run: "r1", Outcome: "restored"})
	must(t, err)
	if lexists(h.path(gcroots+"/r1-old")) || !lexists(h.path(gcroots+"/r1-b-old")) {
		t.Error("the wrong pins are gone")
	}
	for _, p := range []Pin{{"r1", "x", "/etc/passwd"}, {"r1", "../x", oldTop}, {"", "x", oldTop}, {"r1", "x", "/nix/store/none"}} {
		if _, err := h.pin(t.Context(), p); err == nil {
			t.Errorf("%+v was pinned", p)
		}
	}
}

// A snapshot without an origin would have had the top level moved by hand.
func TestHintWithoutAnOriginMovesNothing(t *testing.T) {
	for itself, snap := range map[bool]Snapshot{false: {Name: "copies/a"}, true: {Name: "copies/a", ParentUUID: "u"}} {
		hint := strings.Join(dataHint(&Data{Itself: itself, Snapshots: []Snapshot{snap}}), "\n")
		if strings.Contains(hint, "mv ") || strings.Contains(hint, "mount -o") || !strings.Contains(hint, "copies/a") {
			t.Error(hint)
		}
	}
}

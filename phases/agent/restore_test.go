package agent

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

func recipe() Recipe {
	return Recipe{Run: "r1", Host: "web", Written: time.Unix(0, 0), Before: Facts{System: oldTop, Failed: []string{"bad.service"}}, Operations: []Operation{
		{Op: DoStopJob, Unit: "deployer-r1-test-1.service"},
		{Op: DoActivate, System: oldTop, Action: "test"},
		{Op: DoProfile, System: oldTop, Generation: 1, Drop: 2, DropSystem: newTop},
		{Op: DoBoot, System: oldTop},
		{Op: DoWriteFile, Path: "/etc/some 'file", Digest: sum([]byte("foo")), Content: []byte("foo")},
		{Op: DoUnits, Units: []string{"ok.service"}},
	}}
}

// changed is a host in the middle of run r1.
func changed(t *testing.T) *host {
	h := newHost(t)
	_, err := h.recipePut(t.Context(), recipe())
	must(t, err)
	h.link("run/current-system", newTop)
	h.link("nix/var/nix/profiles/system-2-link", newTop)
	h.link("nix/var/nix/profiles/system", "system-2-link")
	h.file("boot/loader/loader.conf", "default nixos-generation-2.conf\n")
	h.file("boot/loader/entries/nixos-generation-2.conf", entryText(newTop, 2))
	return h
}

func (h *host) restored(code int) Receipt {
	h.t.Helper()
	r, err := h.restoreStart(h.t.Context(), RunRef{"r1"})
	must(h.t, err)
	r = h.wait(r.Unit, 20*time.Second)
	if r.State != stateEnded || r.Code != code || len(r.Result) != len(recipe().Operations) {
		h.t.Fatalf("%+v\n%s", r, h.read(r.Unit+".log"))
	}
	return r
}

func TestRestorePutsTheHostBack(t *testing.T) {
	h := changed(t)
	h.restored(0)
	f, err := h.facts(t.Context(), FactsArgs{Files: []string{"/etc/some 'file"}})
	must(t, err)
	if f.System != oldTop || f.Profile.System != oldTop || f.Profile.Generation != 1 || f.Boot.System != oldTop || f.Files["/etc/some 'file"] != sum([]byte("foo")) {
		t.Errorf("%+v", f)
	}
	if r := h.restored(0); r.Unit != "deployer-restore-r1-2.service" { // again: success
		t.Error(r.Unit)
	}
}

func TestRestoreGoesOnAfterAFailure(t *testing.T) {
	h := changed(t)
	h.file("behave-aaa-old", "[ $1 != test ] || exit 2")
	r := h.restored(1)
	if r.Result[1].State != opFailed || r.Result[1].Code != 2 || r.Result[2].State != opDone || r.Result[3].State != opDone {
		t.Errorf("%+v", r.Result)
	}
	if len(r.Result[1].Hint) == 0 {
		t.Error("nobody is told what to type")
	}
}

func TestRestoreCountsUnitsThatFailSinceTheRun(t *testing.T) {
	h := changed(t)
	h.file("units", "bad.service loaded failed failed x\napp.service loaded failed failed x\nok.service loaded active running x\n")
	if r := h.restored(1); !strings.Contains(r.Result[1].Message, "app.service") || strings.Contains(r.Result[1].Message, "bad.service") {
		t.Error(r.Result[1].Message)
	}
}

func TestRestoresRunOneAtATime(t *testing.T) {
	h := changed(t)
	h.file("behave-aaa-old", "sleep 1")
	first, err := h.restoreStart(t.Context(), RunRef{"r1"})
	must(t, err)
	again, err := h.restoreStart(t.Context(), RunRef{"r1"})
	must(t, err)
	if again.Unit != first.Unit {
		t.Errorf("%s started beside %s", again.Unit, first.Unit)
	}
	// By hand, at the same time: it waits for the other and finds all done.
	code, err := newAgent(h.Options).runRestore(t.Context(), "r1", "")
	must(t, err)
	if code != 0 || h.wait(first.Unit, 10*time.Second).State != stateEnded {
		t.Errorf("code %d", code)
	}
}

func TestRecipeIsReadableByAPerson(t *testing.T) {
	h := changed(t)
	text := h.read("state/runs/r1/RESTORE.txt")
	for _, want := range []string{"systemctl stop deployer-r1-test-1.service", oldTop + "/bin/switch-to-configuration test", "--set " + oldTop,
		"/bin/switch-to-configuration boot", `'/etc/some '\''file'`, "bad.service", "restore r1"} {
		if !strings.Contains(text, want) {
			t.Errorf("RESTORE.txt lacks %q", want)
		}
	}
	if strings.Contains(text, "--rollback") {
		t.Error("RESTORE.txt rolls back to the next lower number")
	}
	for line := range strings.Lines(text) {
		if cmd := strings.TrimPrefix(line, "  "); strings.HasPrefix(cmd, "/nix") || strings.HasPrefix(cmd, "[") || strings.HasPrefix(cmd, "install") {
			if out, err := exec.Command("sh", "-n", "-c", cmd).CombinedOutput(); err != nil {
				t.Errorf("%q: %s", cmd, out)
			}
		}
	}
}

func TestRecipeNamesOnlyContentThatIsThere(t *testing.T) {
	h := newHost(t)
	r := recipe()
	r.Operations[4].Content = nil
	_, err := h.recipePut(t.Context(), r)
	isCode(t, err, "invalid")
	_, err = h.recipeGet(t.Context(), RunRef{"r1"})
	isCode(t, err, "not-found")
	h.file("etc/some 'file", "foo") // the content is the file as it is now
	_, err = h.recipePut(t.Context(), r)
	must(t, err)
	got, err := h.recipeGet(t.Context(), RunRef{"r1"})
	if err != nil || got.Operations[4].Content != nil || !exists(h.path("state/"+contentFile("r1", sum([]byte("foo"))))) {
		t.Error(got, err)
	}
	r.Operations[0].Op = "format-disk"
	_, err = h.recipePut(t.Context(), r)
	isCode(t, err, "invalid")
}

// What was asked for over a lost connection may come late, when it has been asked
// for again and more has: an undo would be missing then.
func TestRecipeThatComesLateReplacesNoNewerOne(t *testing.T) {
	h := newHost(t)
	h.file("etc/some 'file", "foo")
	first := recipe()
	second := first
	second.Written, second.Operations = first.Written.Add(1), append([]Operation{{Op: DoReboot}}, first.Operations...)
	for _, r := range []Recipe{first, first, second} {
		_, err := h.recipePut(t.Context(), r)
		must(t, err)
	}
	_, err := h.recipePut(t.Context(), first)
	isCode(t, err, "invalid")
	if got, err := h.recipeGet(t.Context(), RunRef{"r1"}); err != nil || len(got.Operations) != len(second.Operations) {
		t.Error(got, err)
	}
}

// A controller that asked for the restore between the guard's ticket and its
// receipt was told that it "was asked for before, with another command".
func TestControllerMeetsTheGuardsTicket(t *testing.T) {
	h := changed(t)
	s, err := h.store(true)
	must(t, err)
	job, err := h.enlistRestore(s, "r1")
	must(t, err)
	if r := h.restored(0); r.Unit != job.Unit {
		t.Errorf("%s beside %s", r.Unit, job.Unit)
	}
}

func TestGuardDoesNotRepeatARestoreThatIsOver(t *testing.T) {
	h := changed(t)
	h.restored(0)
	s, err := h.store(true)
	must(t, err)
	must(t, h.goBack(t.Context(), s, *guardOf(s, "r1")))
	if c := closingOf(s, "r1"); lastRestore(s, "r1") != 1 || c == nil || c.Outcome != "restored" {
		t.Errorf("%d restores, closed as %+v", lastRestore(s, "r1"), c)
	}
}

package runbooks_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hbohlen/deployer/runbooks"
)

func window(t interface {
	Helper()
	Fatal(...any)
}, s string) runbooks.Hours {
	t.Helper()
	h, err := runbooks.ParseWindow(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestWindowsThatAreRefused(t *testing.T) {
	for s, want := range map[string]string{
		"":                         "is not a window",
		"sometimes":                "is not a window",
		"sat 2-4":                  "is not a window",
		"sat 02:00-04:00":          "time zone",
		"sat 02:00-04:00 Mars/X":   "time zone",
		"sat 02:00-04:00 Local":    "time zone",
		"sat 02:00-04:00 ../UTC":   "time zone",
		"sat 02:00-04:00 TZ=0":     "time zone",
		"caturday 02:00-04:00 UTC": "no day: `caturday`",
		"sat,,sun 02:00-04:00 UTC": "no day: ``",
		"sat- 02:00-04:00 UTC":     "no day",
		"sat 25:00-26:00 UTC":      "no clock",
		"sat 02:60-04:00 UTC":      "is not a window",
		"sat 24:00-04:00 UTC":      "no clock",
		"sat 02:00-24:01 UTC":      "no clock",
		"sat 02:00-02:00 UTC":      "same time",
	} {
		if _, err := runbooks.ParseWindow(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

func TestWindowsOpenAndClose(t *testing.T) {
	for _, c := range []struct{ window, at, closes, next string }{
		{"sat 02:00-04:00 UTC", "2026-11-21T01:59:59Z", "", "2026-11-21T02:00:00Z"},
		{"sat 02:00-04:00 UTC", "2026-11-21T02:00:00Z", "2026-11-21T04:00:00Z", "2026-11-21T02:00:00Z"},
		{"sat 02:00-04:00 UTC", "2026-11-21T04:00:00Z", "", "2026-11-28T02:00:00Z"},
		{"mon-fri 22:00-02:00 Europe/Berlin", "2026-11-21T00:30:00+01:00", "2026-11-21T02:00:00+01:00", "2026-11-21T00:30:00+01:00"},
		{"mon-fri 22:00-02:00 Europe/Berlin", "2026-11-22T00:30:00+01:00", "", "2026-11-23T22:00:00+01:00"},
		{"fri-mon 22:00-23:00 UTC", "2026-11-22T22:30:00Z", "2026-11-22T23:00:00Z", "2026-11-22T22:30:00Z"},
		{"sat,sun 00:00-24:00 UTC", "2026-11-21T12:00:00Z", "2026-11-23T00:00:00Z", "2026-11-21T12:00:00Z"},
		{"Sat,Sun 00:00-24:00 UTC", "2026-11-23T00:00:00Z", "", "2026-11-28T00:00:00Z"},
	} {
		check(t, c.window, c.at, c.closes, c.next)
	}
}

// The policy for the two days a year on which clocks jump.
func TestWindowsAreWallClockTimes(t *testing.T) {
	for _, c := range []struct{ window, at, closes, next string }{
		// The opening does not exist: the first moment that does, and 30 minutes are lost.
		{"daily 02:30-04:00 Europe/Berlin", "2026-03-29T01:59:59+01:00", "", "2026-03-29T03:00:00+02:00"},
		{"daily 02:30-04:00 Europe/Berlin", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00", "2026-03-29T03:00:00+02:00"},
		// The closing does not exist.
		{"daily 01:00-02:30 Europe/Berlin", "2026-03-29T01:59:59+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T01:59:59+01:00"},
		// No moment of it exists: shut on that day.
		{"daily 02:15-02:45 Europe/Berlin", "2026-03-29T00:00:00+01:00", "", "2026-03-30T02:15:00+02:00"},
		{"sun 02:15-02:45 Europe/Berlin", "2026-03-29T00:00:00+01:00", "", "2026-04-05T02:15:00+02:00"},
		// Opening and closing exist twice: from the first to the second.
		{"daily 02:30-02:45 Europe/Berlin", "2026-10-25T02:29:59+02:00", "", "2026-10-25T02:30:00+02:00"},
		{"daily 02:30-02:45 Europe/Berlin", "2026-10-25T02:40:00+02:00", "2026-10-25T02:45:00+01:00", "2026-10-25T02:40:00+02:00"},
		{"daily 02:30-02:45 Europe/Berlin", "2026-10-25T02:44:59+01:00", "2026-10-25T02:45:00+01:00", "2026-10-25T02:44:59+01:00"},
		// Half an hour's jump, and one at midnight.
		{"daily 02:15-03:00 Australia/Lord_Howe", "2026-10-03T15:00:00Z", "", "2026-10-03T15:30:00Z"},
		{"sun 00:00-02:00 America/Santiago", "2026-09-06T03:00:00Z", "", "2026-09-06T04:00:00Z"},
	} {
		check(t, c.window, c.at, c.closes, c.next)
	}
}

func check(t *testing.T, s, now, wantCloses, wantNext string) {
	t.Helper()
	h := window(t, s)
	closes, open := h.Open(at(t, now))
	if open != (wantCloses != "") {
		t.Errorf("%s at %s: open is %v", s, now, open)
	}
	if open && !closes.Equal(at(t, wantCloses)) {
		t.Errorf("%s at %s: closes %s, want %s", s, now, closes, wantCloses)
	}
	if next := h.Next(at(t, now)); !next.Equal(at(t, wantNext)) {
		t.Errorf("%s at %s: next %s, want %s", s, now, next, wantNext)
	}
}

func TestAWindowThatIsAlwaysOpenNeverCloses(t *testing.T) {
	now := at(t, "2026-11-21T12:00:00Z")
	h := window(t, "always")
	closes, open := h.Open(now)
	if !open || !closes.IsZero() || !h.Next(now).Equal(now) {
		t.Errorf("open %v, closes %s, next %s", open, closes, h.Next(now))
	}
	if _, open := (runbooks.Hours{}).Open(now); open || !(runbooks.Hours{}).Next(now).IsZero() {
		t.Error("a window that nobody set is open")
	}
}

// anyWindow is a window, and the text and zone that it was read from.
func anyWindow(t *rapid.T) (runbooks.Hours, string, *time.Location) {
	days := rapid.SampledFrom([]string{"daily", "sat", "sat,sun", "mon-fri", "sun-mon", "wed,fri-sat"}).Draw(t, "days")
	zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "Africa/Casablanca"}).Draw(t, "zone")
	clock := rapid.Custom(func(t *rapid.T) string {
		m := rapid.IntRange(0, 24*4-1).Draw(t, "quarter") * 15
		return time.Date(2000, 1, 1, m/60, m%60, 0, 0, time.UTC).Format("15:04")
	})
	from := clock.Draw(t, "from")
	to := clock.Filter(func(s string) bool { return s != from }).Draw(t, "to")
	in, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	text := days + " " + from + "-" + to + " " + zone
	return window(t, text), text, in
}

// Next is never in the past, open, and the first such moment.
func TestTheNextOpeningIsTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, name, _ := anyWindow(t)
		now := time.Unix(rapid.Int64Range(1767225600, 1956528000).Draw(t, "now"), 0)
		next := h.Next(now)
		if next.Before(now) {
			t.Fatalf("next %s is before %s", next, now)
		}
		closes, open := h.Open(next)
		if !open || !closes.After(next) {
			t.Fatalf("%s: at its next opening %s it is open: %v, until %s", name, next, open, closes)
		}
		if _, open := h.Open(closes); open {
			t.Fatalf("%s: open when it closes, at %s", name, closes)
		}
		if next.After(now) {
			between := now.Add(time.Duration(rapid.Float64Range(0, 0.999).Draw(t, "between") * float64(next.Sub(now))))
			if _, open := h.Open(between); open {
				t.Fatalf("%s: open at %s, before %s", name, between, next)
			}
		}
	})
}

// While it is open, the clock on the wall of its zone shows a time within it.
func TestAnOpenWindowShowsItsTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, name, zone := anyWindow(t)
		now := time.Unix(rapid.Int64Range(1767225600, 1956528000).Draw(t, "now"), 0)
		if _, open := h.Open(now); !open {
			return
		}
		text := strings.Fields(name)[1]
		from, to, _ := strings.Cut(text, "-")
		wall := now.In(zone).Format("15:04")
		inside := from <= wall && wall < to
		if to < from {
			inside = wall >= from || wall < to
		}
		if !inside && !clockJumps(now, zone) {
			t.Fatalf("%s: open at %s", name, wall)
		}
	})
}

// clockJumps tells whether clocks of a zone change within a day of t.
func clockJumps(t time.Time, zone *time.Location) bool {
	_, before := t.Add(-24 * time.Hour).In(zone).Zone()
	_, after := t.Add(24 * time.Hour).In(zone).Zone()
	return before != after
}

func FuzzParseWindow(f *testing.F) {
	for _, s := range []string{"always", "sat 02:00-04:00 UTC", "mon-fri 22:00-02:00 Europe/Berlin", "sat,,- 99:99-00:00 x", "daily 00:00-24:00 UTC"} {
		f.Add(s)
	}
	now := time.Unix(1767225600, 0)
	f.Fuzz(func(t *testing.T, s string) {
		h, err := runbooks.ParseWindow(s)
		if err != nil {
			return
		}
		if _, open := h.Open(h.Next(now)); !open {
			t.Errorf("%q never opens", s)
		}
	})
}

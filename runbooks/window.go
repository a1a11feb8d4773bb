package runbooks

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hours are the times at which a maintenance window is open: wall-clock times
// of a zone. Where clocks go forward over the opening, the window opens at the
// first moment that exists; where they go back, it covers both occurrences of
// its opening and closing. A window of which no moment exists stays shut on
// that day.
type Hours struct {
	always bool
	days   [7]bool
	from   int // minutes since midnight of an opening day
	to     int // the same; later than from, maybe on the next day
	zone   *time.Location
}

var (
	hours    = regexp.MustCompile(`^(\S+) +(\d\d):([0-5]\d)-(\d\d):([0-5]\d)(?: +(\S+))?$`)
	weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

const day = 24 * 60

// ParseWindow reads `always`, `daily 02:00-04:00 UTC`, `sat,sun 02:00-04:00 UTC`
// or `mon-fri 22:00-02:00 Europe/Berlin`. A window that ends before it begins
// ends on the next day; it belongs to the day on which it opens.
func ParseWindow(s string) (h Hours, err error) {
	if s == "always" {
		return Hours{always: true}, nil
	}
	m := hours.FindStringSubmatch(s)
	if m == nil {
		return h, errors.New("is not a window")
	}
	h.from, h.to = minutes(m[2], m[3]), minutes(m[4], m[5])
	switch {
	case h.from >= day || h.to > day:
		return h, errors.New("has a time that no clock shows")
	case h.from == h.to:
		return h, errors.New("opens and closes at the same time")
	case h.to < h.from:
		h.to += day
	}
	if m[6] == "" {
		return h, errors.New("does not say in which time zone")
	}
	if h.zone, err = loadZone(m[6]); err != nil {
		return h, fmt.Errorf("names no known time zone: `%s`", m[6])
	}
	return h, h.setDays(strings.ToLower(m[1]))
}

func minutes(hh, mm string) int {
	h, _ := strconv.Atoi(hh)
	m, _ := strconv.Atoi(mm)
	return h*60 + m
}

func (h *Hours) setDays(text string) error {
	if text == "daily" {
		text = "sun-sat"
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		d, end := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if d < 0 || end < 0 {
			return fmt.Errorf("names no day: `%s`", part)
		}
		for h.days[d] = true; d != end; h.days[d] = true {
			d = (d + 1) % 7
		}
	}
	return nil
}

// Open tells whether the window is open at t, and when it closes. Openings
// that touch are one. A window that is always open never closes: zero time.
func (h Hours) Open(t time.Time) (closes time.Time, ok bool) {
	for _, o := range h.openings(t) {
		if !o.from.After(t) && t.Before(o.to) || ok && !o.from.After(closes) {
			closes, ok = later(closes, o.to), true
		}
	}
	return closes, ok || h.always
}

// Next is the first moment not before t at which the window is open; the zero
// time where there is none.
func (h Hours) Next(t time.Time) time.Time {
	if _, open := h.Open(t); open {
		return t
	}
	for _, o := range h.openings(t) {
		if o.from.After(t) {
			return o.from
		}
	}
	return time.Time{}
}

type opening struct{ from, to time.Time }

// openings are those around t, in their order: enough of them to skip a day on
// which the clock leaves the window out.
func (h Hours) openings(t time.Time) []opening {
	if h.zone == nil {
		return nil
	}
	var all []opening
	y, m, d := t.In(h.zone).Date()
	for i := -2; i <= 16; i++ {
		date := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC)
		from, _ := instants(date.Add(time.Duration(h.from)*time.Minute), h.zone)
		_, to := instants(date.Add(time.Duration(h.to)*time.Minute), h.zone)
		if h.days[date.Weekday()] && from.Before(to) {
			all = append(all, opening{from, to})
		}
	}
	return all
}

// instants are the first and the last moment at which clocks of a zone show
// what wall shows in UTC; where none does, both are the moment clocks jump.
func instants(wall time.Time, zone *time.Location) (first, last time.Time) {
	var shown []time.Time
	var before time.Time // the moment, had clocks not jumped
	for _, near := range []time.Duration{36 * time.Hour, -36 * time.Hour} {
		_, offset := wall.Add(near).In(zone).Zone()
		before = wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if _, own := before.Zone(); own == offset {
			shown = append(shown, before)
		}
	}
	if shown == nil {
		jump, _ := before.ZoneBounds()
		return jump, jump
	}
	slices.SortFunc(shown, time.Time.Compare)
	return shown[0], shown[len(shown)-1]
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

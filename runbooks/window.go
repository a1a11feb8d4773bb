package runbooks

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Hours are the times at which a maintenance window is open: wall-clock times
// of a zone. Where clocks go forward over the opening, the window opens at the
// first moment that exists; where they go back, it covers both occurrences of
// its opening and closing. A window of which no moment exists stays shut on
// that day.
type Hours struct {
	text   string
	always bool
	days   [7]bool
	from   int // minutes since midnight of an opening day
	length int // minutes by the wall clock
	zone   *time.Location
}

var (
	hours    = regexp.MustCompile(`^(\S+) +(\d\d):(\d\d)-(\d\d):(\d\d)(?: +(\S+))?$`)
	weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

const day = 24 * 60

// ParseWindow reads `always`, `daily 02:00-04:00 UTC`, `sat,sun 02:00-04:00 UTC`
// or `mon-fri 22:00-02:00 Europe/Berlin`. A window that ends before it begins
// ends on the next day; it belongs to the day on which it opens.
func ParseWindow(s string) (Hours, error) {
	if s == "always" {
		return Hours{text: s, always: true}, nil
	}
	m := hours.FindStringSubmatch(s)
	if m == nil {
		return Hours{}, errors.New("is not a window")
	}
	h := Hours{text: s}
	if err := h.setDays(m[1]); err != nil {
		return Hours{}, err
	}
	if err := h.setTimes(m[2:6]); err != nil {
		return Hours{}, err
	}
	if m[6] == "" {
		return Hours{}, errors.New("does not say in which time zone")
	}
	var err error
	if h.zone, err = loadZone(m[6]); err != nil {
		return Hours{}, fmt.Errorf("names no known time zone: `%s`", m[6])
	}
	return h, nil
}

func (h *Hours) setDays(text string) error {
	if text == "daily" {
		h.days = [7]bool{true, true, true, true, true, true, true}
		return nil
	}
	for part := range strings.SplitSeq(strings.ToLower(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if a < 0 || b < 0 {
			return fmt.Errorf("names no day: `%s`", part)
		}
		for d := a; ; d = (d + 1) % 7 {
			h.days[d] = true
			if d == b {
				break
			}
		}
	}
	return nil
}

func (h *Hours) setTimes(m []string) error {
	n := make([]int, 4)
	for i, digits := range m {
		n[i] = int(digits[0]-'0')*10 + int(digits[1]-'0')
	}
	from, to := n[0]*60+n[1], n[2]*60+n[3]
	if n[1] > 59 || n[3] > 59 || from >= day || to > day {
		return errors.New("has a time that no clock shows")
	}
	if from == to {
		return errors.New("opens and closes at the same time")
	}
	h.from, h.length = from, (to-from+day)%day
	if h.length == 0 { // 00:00-24:00
		h.length = day
	}
	return nil
}

// String is the window as it was written.
func (h Hours) String() string { return h.text }

// Zone is the zone of its times; UTC for `always`.
func (h Hours) Zone() *time.Location {
	if h.zone == nil {
		return time.UTC
	}
	return h.zone
}

// Open tells whether the window is open at t, and when it closes. Openings
// that touch are one. A window that is always open never closes: zero time.
func (h Hours) Open(t time.Time) (closes time.Time, ok bool) {
	if h.always {
		return time.Time{}, true
	}
	for _, o := range h.openings(t) {
		switch {
		case !ok && !t.Before(o[0]) && t.Before(o[1]):
			closes, ok = o[1], true
		case ok && !o[0].After(closes):
			closes = later(closes, o[1])
		}
	}
	return closes, ok
}

// Next is the first moment not before t at which the window is open; the zero
// time where there is none.
func (h Hours) Next(t time.Time) time.Time {
	if _, open := h.Open(t); open {
		return t
	}
	for _, o := range h.openings(t) {
		if o[0].After(t) {
			return o[0]
		}
	}
	return time.Time{}
}

// openings are the moments of opening and closing around t, in their order:
// enough of them to skip a day on which the clock leaves the window out.
func (h Hours) openings(t time.Time) [][2]time.Time {
	if h.zone == nil {
		return nil
	}
	var all [][2]time.Time
	y, m, d := t.In(h.zone).Date()
	for i := -2; i <= 16; i++ {
		date := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC)
		if !h.days[date.Weekday()] {
			continue
		}
		opening := date.Add(time.Duration(h.from) * time.Minute)
		from, _ := instants(opening, h.zone)
		_, to := instants(opening.Add(time.Duration(h.length)*time.Minute), h.zone)
		if from.Before(to) {
			all = append(all, [2]time.Time{from, to})
		}
	}
	return all
}

// instants are the first and the last moment at which clocks of a zone show
// what wall shows in UTC; where none does, both are the moment clocks jump.
func instants(wall time.Time, zone *time.Location) (first, last time.Time) {
	for _, near := range []time.Duration{-36 * time.Hour, 36 * time.Hour} {
		_, offset := wall.Add(near).In(zone).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if _, own := t.Zone(); own != offset {
			continue
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
		last = later(last, t)
	}
	if first.IsZero() {
		_, offset := wall.Add(-36 * time.Hour).In(zone).Zone()
		jump, _ := wall.Add(-time.Duration(offset) * time.Second).In(zone).ZoneBounds()
		return jump, jump
	}
	return first, last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package simulation

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hbohlen/deployer/state"
)

// Two kills that leave worlds alike are one case: what follows is the same. Alike
// means the same files, names, processes and records, but for times, epochs,
// counters of attempts and the names of temporary files, by which nothing that
// runs here decides anything but equal or greater. The seeded sample, which looks
// at no likeness, is the check of that.

var seed = maphash.MakeSeed()

type likeness uint64

func mix(parts ...likeness) likeness {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, p := range parts {
		for i := range 8 {
			h.WriteByte(byte(p >> (8 * i)))
		}
	}
	return likeness(h.Sum64())
}

func text(s string) likeness { return likeness(maphash.String(seed, s)) }

// content leaves out numbers, unless they are one digit that stands alone.
func content(data []byte) likeness {
	var h maphash.Hash
	h.SetSeed(seed)
	from := 0
	for i := 0; i < len(data); i++ {
		if data[i] < '0' || data[i] > '9' {
			continue
		}
		alone := (i == 0 || data[i-1] == ' ' || data[i-1] == '"') && (i+1 == len(data) || data[i+1] == ',' || data[i+1] == '\n' || data[i+1] == '"')
		if !alone || strings.HasSuffix(string(data[max(0, i-9):i]), `"epoch": `) {
			h.Write(data[from:i])
			from = i + 1
		}
	}
	h.Write(data[from:])
	return likeness(h.Sum64())
}

// like is what a power cut of this kind would leave; "" is what is there now.
func (n *inode) like(c cut) likeness {
	if !n.dir {
		if n.isLike == nil {
			n.isLike = map[cut]likeness{}
		}
		l, ok := n.isLike[c]
		if !ok {
			l = mix(content(n.after(c)), text(n.link))
			n.isLike[c] = l
		}
		return l
	}
	var sum likeness // of names in any order
	entries := n.entries
	if c == nothing {
		entries = n.durable
	}
	for name, e := range entries {
		if !strings.HasPrefix(name, ".new.") {
			sum += mix(text(nameless(name)), e.like(c))
		}
	}
	return sum + 1
}

// after is what a power cut of this kind leaves of a file.
func (n *inode) after(c cut) []byte {
	switch {
	case c == nothing || c == names:
		return n.synced
	case c == torn && len(n.data) > len(n.synced):
		return n.data[:len(n.synced)+(len(n.data)-len(n.synced))/2]
	}
	return n.data
}

// like is a host as it is, or after a power cut. Without process, if one is given.
func (m *machine) like(c cut, without func(*process) bool) likeness {
	m.disk.mu.Lock()
	disk := m.disk.root.like(c)
	m.disk.mu.Unlock()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if c != "" {
		return mix(disk, m.systemLike(c), text(fmt.Sprint(m.behave.module)))
	}
	var procs likeness
	for p := range m.procs {
		if p.alive() == nil && !without(p) {
			procs += mix(text(p.name), text(p.last))
		}
	}
	up := text("up")
	if m.behave.module {
		up = text("guarded")
	}
	if !m.up {
		up = text("down")
	}
	if time.Now().Before(m.link.until) {
		up += text("link down")
	}
	return mix(disk, m.systemLike(c), text(m.mixed), procs, up)
}

// systemLike is the host's folders and subvolumes.
func (m *machine) systemLike(c cut) likeness {
	if m.dirty || m.likes == nil {
		m.dirty, m.likes = false, map[bool]likeness{}
		for _, cutOff := range []bool{false, true} {
			var sum likeness
			for dir, list := range m.platter {
				if !cutOff {
					list = readDir(dir)
				}
				for name, what := range list {
					if !strings.HasPrefix(name, ".new.") {
						sum += mix(text(strings.TrimPrefix(dir, m.dir)), text(name), text(what))
					}
				}
			}
			m.likes[cutOff] = mix(sum, text(m.readlink("/run/current-system")))
		}
	}
	subs := m.btrfs.is
	if c == nothing || c == names {
		subs = m.btrfs.durable
	}
	return mix(m.likes[c == nothing], likeness(len(subs)))
}

// records is the journal, as far as anybody decides by it.
type records struct{ run state.Run }

func (r *records) add(rec state.Record) { state.Apply(&r.run, rec) }

func (r *records) like() likeness {
	sum := mix(text(string(r.run.Status)), text(string(r.run.Outcome)))
	for _, host := range slices.Sorted(maps.Keys(r.run.Lanes)) {
		sum = mix(sum, text(string(r.run.Lanes[host].Status)))
	}
	for _, p := range r.run.Phases {
		for _, s := range p.Steps {
			sum += mix(text(s.Key), text(s.Host), text(string(s.Status)))
		}
	}
	return sum
}

// like is the world after a kill at a point that was just come to.
func (w *world) like(k crash, p *process) likeness {
	w.mu.Lock()
	c := w.now
	where := text(c.last)
	sum := w.records.like()
	w.mu.Unlock()
	dying := func(q *process) bool { return false }
	switch k.what {
	case "controller":
		dying = func(q *process) bool { return q.by == c && q.name == "serve" }
		where = text("dead")
		if k.cut != "" {
			where = mix(text("dead"), c.unsynced(k.cut))
		}
	case "process":
		dying = func(q *process) bool { return q == p }
	}
	for _, m := range w.machines {
		if k.what == "power" && k.host == m.name {
			sum = mix(sum, m.like(k.cut, dying))
		} else {
			sum = mix(sum, m.like("", dying))
		}
	}
	what := k.what
	if what == "process" { // whose process it was is in what lives on
		what += " " + cmp.Or(p.name, "")
	}
	return mix(sum, where, text(what), text(k.away.String()), text(k.host))
}

package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// The systems of every host: what it runs at first, and what it is to run.
const (
	oldSystem = "/nix/store/0000000000000000000000000000000a-nixos-system-old"
	newSystem = "/nix/store/0000000000000000000000000000000b-nixos-system-new"
)

// machine is a host. What the agent remembers lies on disk; the system itself
// is real files below dir, for the agent reads those by package os.
type machine struct {
	w    *world
	name string
	dir  string
	disk *disk
	link *link

	// Under w.mu.
	procs    map[*process]bool
	units    map[string]*unit // transient ones that are loaded
	platter  platter
	up       bool
	boots    int
	booted   time.Time
	mixed    string // what left it between two systems; "": nothing
	switcher *process
	btrfs    *subvolumes
	writer   *controller       // whose epoch is the host's
	ran      map[string]int    // programs, by unit
	keeps    []string          // records of the run that it was given
	shot     bool              // it said that it has a snapshot
	dirty    bool              // likes is old
	likes    map[bool]likeness // of the folders: as they are, and as on the platter

	behave behaviour
}

// behaviour is how the systems of a host do.
type behaviour struct {
	module   bool // deployer-host.nix is installed: a guard outlives a reboot
	sick     bool // the new system does not reach multi-user.target
	breaks   bool // activating the new system fails half way
	stuck    bool // activating the old system again fails
	inhibits bool // the new system refuses to be switched to live: exit 100
}

func newMachine(w *world, name, dir string, b behaviour) *machine {
	m := &machine{w: w, name: name, dir: dir, disk: newDisk(), procs: map[*process]bool{}, units: map[string]*unit{}, platter: platter{}, ran: map[string]int{}, behave: b}
	m.link = &link{m: m}
	for _, d := range []string{m.root(), dir + "/run", dir + "/boot/loader/entries", dir + "/nix/var/nix/profiles/system-profiles", dir + "/nix/var/nix/gcroots/deployer",
		dir + "/proc/sys/kernel/random", dir + "/proc/self", dir + "/etc", dir + efivars} {
		check(os.MkdirAll(d, 0o700))
	}
	m.layOut()
	m.file("/etc/os-release", "ID=nixos\n")
	m.file(agent.LauncherPath, "")
	m.system(oldSystem)
	m.symlink(agent.SystemProfile+"-7-link", oldSystem)
	m.symlink(agent.SystemProfile, "system-7-link")
	m.loader(oldSystem)
	for _, d := range []string{"/nix/var/nix/profiles", "/nix/var/nix/profiles/system-profiles", "/nix/var/nix/gcroots/deployer", "/boot/loader", "/boot/loader/entries", efivars} {
		m.settle(dir + d)
	}
	m.boot()
	return m
}

const efivars = "/sys/firmware/efi/efivars"

func (m *machine) root() string { return m.dir + agent.Dir }

// touch says that the host's folders are about to change.
func (m *machine) touch() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.dirty = true
}

func (m *machine) file(name, text string) {
	m.touch()
	check(os.MkdirAll(path.Dir(m.dir+name), 0o700))
	check(os.WriteFile(m.dir+name, []byte(text), 0o700))
}

func (m *machine) symlink(name, target string) {
	m.touch()
	os.Remove(m.dir + name)
	if err := os.Symlink(target, m.dir+name); !errors.Is(err, os.ErrNotExist) { // else its folder went with the power
		check(err)
	}
}

func (m *machine) readlink(name string) string {
	target, _ := os.Readlink(m.dir + name)
	return target
}

func (m *machine) has(name string) bool {
	_, err := os.Lstat(m.dir + name)
	return err == nil
}

// system puts a system into the host's store.
func (m *machine) system(top string) {
	m.file(top+"/bin/switch-to-configuration", "")
	m.file(top+"/sw/bin/nix-env", "")
	m.file(top+"/nixos-version", "1")
	if m.behave.module {
		m.file(top+"/"+agent.ModuleUnit, "")
	}
}

// boot starts what the boot loader's default, or its one-shot entry, says.
func (m *machine) boot() {
	m.w.mu.Lock()
	m.boots++
	m.booted, m.mixed, m.switcher = time.Now(), "", nil
	id := fmt.Sprintf("boot-%d", m.boots)
	m.w.mu.Unlock()
	m.file("/proc/sys/kernel/random/boot_id", id+"\n")
	entry := m.oneShot(true)
	if entry == "" {
		entry = m.defaultEntry()
	}
	top := m.entrySystem(entry)
	m.symlink("/run/booted-system", top)
	m.symlink("/run/current-system", top)
	m.w.mu.Lock()
	m.up = true // nobody comes in before
	m.w.mu.Unlock()
	if m.boots > 1 && m.behave.module {
		m.spawn("resume", func(ctx context.Context, p *process) { m.verb(ctx, p, "", "resume") })
	}
}

// Boottime implements agent.Clock.
func (m *machine) Boottime() time.Duration {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return time.Since(m.booted)
}

func (m *machine) bootID() string {
	data, _ := os.ReadFile(m.dir + "/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// off is a power cut: every process is dead, the disk is what the cut left.
func (m *machine) off(c cut) {
	m.w.mu.Lock()
	m.up = false
	procs := m.procs
	m.procs, m.units = map[*process]bool{}, map[string]*unit{}
	m.w.mu.Unlock()
	for p := range procs {
		p.kill()
	}
	m.link.drop()
	m.disk.crash(c)
	m.crashSnapshots(c)
	if c == nothing {
		m.restore()
	}
	for dir := range m.platter {
		m.settle(dir)
	}
	m.symlink("/run/current-system", "/nowhere")
}

// down is how long a host is away that lost its power.
const down = 20 * time.Second

// crash is a power cut, and the boot after it.
func (m *machine) crash(c cut) {
	m.off(c)
	time.AfterFunc(down, m.boot)
}

// reboot is an orderly one: units are stopped first, and the disk is synced.
func (m *machine) reboot() {
	m.w.mu.Lock()
	units := m.units
	m.w.mu.Unlock()
	for _, u := range units {
		m.stop(u)
	}
	m.crash(all)
}

// The boot loader is systemd-boot as NixOS writes it: an entry for each
// generation of the system profile and of those in system-profiles.
func (m *machine) loader(top string) {
	var entries []string
	m.eachGeneration(func(profile string, number int, system string) {
		name := fmt.Sprintf("nixos-generation-%d.conf", number)
		if profile != "system" {
			name = fmt.Sprintf("nixos-%s-generation-%d.conf", profile, number)
		}
		entries = append(entries, name)
		title := "NixOS"
		if profile != "system" {
			title += " [" + profile + "]"
		}
		m.file("/boot/loader/entries/"+name, fmt.Sprintf("title "+title+"\nsort-key nixos\nversion Generation %d\noptions init=%s/init\n", number, system))
		if system == top && profile == "system" {
			m.file("/boot/loader/loader.conf", "timeout 5\ndefault "+name+"\n")
		}
	})
	there, _ := os.ReadDir(m.dir + "/boot/loader/entries")
	for _, e := range there {
		if !slices.Contains(entries, e.Name()) {
			m.remove("/boot/loader/entries/" + e.Name())
		}
	}
}

func (m *machine) eachGeneration(visit func(profile string, number int, system string)) {
	for _, dir := range []string{"/nix/var/nix/profiles", "/nix/var/nix/profiles/system-profiles"} {
		links, _ := os.ReadDir(m.dir + dir)
		for _, l := range links {
			rest, ok := strings.CutSuffix(l.Name(), "-link")
			i := strings.LastIndexByte(rest, '-')
			if n, err := strconv.Atoi(rest[i+1:]); ok && err == nil {
				visit(rest[:max(i, 0)], n, m.readlink(path.Join(dir, l.Name())))
			}
		}
	}
}

func (m *machine) defaultEntry() string {
	conf, _ := os.ReadFile(m.dir + "/boot/loader/loader.conf")
	_, rest, _ := strings.Cut(string(conf), "default ")
	entry, _, _ := strings.Cut(rest, "\n")
	return entry
}

func (m *machine) entrySystem(entry string) string {
	data, _ := os.ReadFile(m.dir + "/boot/loader/entries/" + entry)
	_, rest, _ := strings.Cut(string(data), "init=")
	top, _, _ := strings.Cut(rest, "/init")
	return top
}

const oneShotVariable = efivars + "/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// oneShot is the entry of the next boot alone; take: this is that boot.
func (m *machine) oneShot(take bool) string {
	data, err := os.ReadFile(m.dir + oneShotVariable)
	if err != nil || len(data) < 4 {
		return ""
	}
	var name []byte
	for i := 4; i < len(data); i += 2 {
		if data[i] != 0 {
			name = append(name, data[i])
		}
	}
	if take {
		m.remove(oneShotVariable)
		m.settle(m.dir + efivars)
	}
	return string(name)
}

func (m *machine) setOneShot(entry string) {
	data := []byte{7, 0, 0, 0}
	for _, c := range []byte(entry + "\x00") {
		data = append(data, c, 0)
	}
	m.file(oneShotVariable, string(data))
	m.settle(m.dir + efivars)
}

// verb is a verb of the agent in its process.
func (m *machine) verb(ctx context.Context, p *process, unit string, args ...string) int {
	o := p.options()
	o.Unit = unit
	code, err := agent.Run(ctx, o, args...)
	if err != nil {
		m.w.logf("%s: %s %v: %v", m.name, p.name, args, err)
	}
	return code
}

func (m *machine) read(name string) string {
	data, _ := os.ReadFile(m.dir + name)
	return string(data)
}

func (m *machine) remove(name string) {
	m.touch()
	check(os.Remove(m.dir + name))
}

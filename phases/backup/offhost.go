package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/runbooks"
)

// Vault is the backup host, reached: it keeps copies of snapshots of other
// hosts, each chain in PATH/HOST.
type Vault struct {
	*phases.Lane
	conf       runbooks.OffHost
	subvolumes []string
	dir        string // where hosts keep their snapshots; empty: they choose
}

// Open reaches the project's backup host as any other one.
func Open(ctx context.Context, r *phases.Run) (*Vault, error) {
	p := r.Project
	if p.Backup == nil || p.Backup.OffHost == nil {
		return nil, &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("%s names no backup host", p.File),
			Hint: []string{"# in deployer.yaml: backup: {off-host: {address: backup.example.net, path: /srv/backup, subvolumes: [/persist]}}"}}
	}
	v := &Vault{conf: *p.Backup.OffHost, subvolumes: p.Backup.OffHost.Subvolumes}
	if p.Snapshots != nil {
		v.dir = p.Snapshots.Dir
		if len(v.subvolumes) == 0 {
			v.subvolumes = slices.Sorted(maps.Keys(p.Snapshots.Subvolumes))
		}
	}
	v.Lane = phases.NewLane(&runbooks.Host{Name: v.conf.Address, Address: v.conf.Address, User: v.conf.User}, r.Agents)
	err := r.Reach(ctx, v.Lane)
	if err == nil {
		if user, root := v.Host.Login(); !root && !v.Seen.Launcher {
			err = phases.Precondition(fmt.Errorf("%s is not root on %s, and there is no launcher for the agent", user, v.Name), phases.ByRoot(user, v.conf.Address)...)
		}
	}
	if err != nil {
		v.Drop()
	}
	return v, phases.At("the backup host", err)
}

// Is tells whether a host is the backup host itself.
func (v *Vault) Is(l *phases.Lane) bool { return l.Conf.Address == v.Conf.Address }

// backupRun is how agents name the snapshots that they take for copies.
const backupRun = "backup"

// Chain is what the backup host has of one host.
type Chain struct {
	Host    string           `json:"host"`
	Backup  string           `json:"backup"`  // host and folder
	Copies  []agent.Copy     `json:"copies"`  // oldest first
	Parents []string         `json:"parents"` // uuids of those that the next one can start from
	Wrong   []phases.Finding `json:"wrong"`

	taken []agent.Snapshot // of the host itself
}

// look finds the copies that the next one can start from: their snapshots are on
// their host still, as they were.
func (c *Chain) look(ctx context.Context, r *phases.Run, src *phases.Lane) error {
	var list []agent.Snapshot
	err := r.Reach(ctx, src)
	if err == nil {
		err = src.Call(ctx, agent.OpSnapshots, agent.DiscoverArgs{}, &list)
	}
	c.taken = list
	for _, x := range c.Copies {
		same := func(s agent.Snapshot) bool { return s.UUID == x.UUID && s.ReadOnly && s.Changed == x.Changed }
		if !broken(x) && slices.ContainsFunc(list, same) {
			c.Parents = append(c.Parents, x.UUID)
		}
	}
	return err
}

func (v *Vault) copies(ctx context.Context, name string) (c Chain, err error) {
	c = Chain{Host: name, Backup: v.Name + ":" + v.conf.Path, Parents: []string{}, Wrong: []phases.Finding{}}
	err = v.Call(ctx, agent.OpCopies, agent.CopiesArgs{Path: v.conf.Path, Host: name}, &c.Copies)
	return c, phases.At("the backup host "+v.Name, v.said(err))
}

// said is an error of the agent there: what it hints at is not typed here.
func (v *Vault) said(err error) error {
	var ae *agent.Error
	if !errors.As(err, &ae) {
		return err
	}
	there := *ae
	there.Hint = nil
	for _, h := range ae.Hint {
		if !strings.HasPrefix(h, "#") {
			h = v.typed(h)
		}
		there.Hint = append(there.Hint, h)
	}
	return &there
}

func broken(c agent.Copy) bool { return c.Problem != "" }

// newest is the newest complete copy of a subvolume, with all of its set that is
// nested in it.
func (c Chain) newest(subvolume string) *agent.Copy {
	for i, last := range slices.Backward(c.Copies) {
		lacks := func(member string) bool {
			return within(member, subvolume) && !slices.ContainsFunc(c.Copies, func(x agent.Copy) bool {
				return x.Source == member && x.Set() == last.Set() && !broken(x)
			})
		}
		if last.Source == subvolume && !broken(last) && !slices.ContainsFunc(last.Members, lacks) {
			return &c.Copies[i]
		}
	}
	return nil
}

func within(path, top string) bool {
	return path == top || strings.HasPrefix(path, strings.TrimSuffix(top, "/")+"/")
}

// parent is the newest copy that both ends have.
func (c Chain) parent(s agent.Snapshot) agent.Copy {
	for _, last := range slices.Backward(c.Copies) {
		if last.Source == s.Source && last.FSID == s.FSID && c.Parent(last) {
			return last
		}
	}
	return agent.Copy{}
}

// Sent is one copy that was made.
type Sent struct {
	Host      string    `json:"host"`
	Subvolume string    `json:"subvolume"`
	At        string    `json:"at"`             // on the backup host
	Since     time.Time `json:"since,omitzero"` // of the snapshot that it starts from; zero: a full copy
	Bytes     int64     `json:"bytes"`          // that went over the wire
	Took      float64   `json:"took"`           // seconds
}

// Send takes a set of a host's declared subvolumes and copies it. What is nested
// goes first: where a declared subvolume's copy is, those of its set are.
func (v *Vault) Send(ctx context.Context, r *phases.Run, src *phases.Lane, say func(string)) (done []Sent, err error) {
	c, err := v.copies(ctx, src.Name)
	if err == nil {
		err = c.look(ctx, r, src)
	}
	var set []agent.Snapshot
	if err == nil {
		args := agent.SnapshotArgs{Dir: v.dir, Stamp: r.Now().UTC().Format("20060102T150405Z"), Paths: v.subvolumes}
		err = src.Call(ctx, agent.OpBackup, args, &set)
	}
	if err != nil {
		return nil, err
	}
	// What is nested in a path begins with it, so it sorts behind it.
	slices.SortFunc(set, func(a, b agent.Snapshot) int { return cmp.Compare(b.Source, a.Source) })
	var members []string
	for _, s := range set {
		members = append(members, s.Source)
	}
	for _, next := range set {
		parent := c.parent(next)
		how := "all of it"
		if parent.UUID != "" {
			how = "what changed since " + parent.Set()
		}
		say(fmt.Sprintf("%s: copying %s to %s, %s", src.Name, next.Source, c.Backup, how))
		sent, err := v.copy(ctx, src, next, parent, members)
		if err != nil {
			return done, fmt.Errorf("cannot copy %s to %s: %w", next.Source, c.Backup, err)
		}
		var old []agent.Deleted
		if err := src.Call(ctx, agent.OpCopied, next, &old); err != nil {
			return done, err
		}
		for _, d := range old {
			if d.State == "refused" {
				say(fmt.Sprintf("%s: an earlier snapshot of %s stays until the next copy: %s", src.Name, next.Source, d.Why))
			}
		}
		done = append(done, sent)
	}
	return done, nil
}

// copy pipes one snapshot from host to host through this process, which keeps
// nothing of it. Where one end dies, the other is told by the end of the pipe.
func (v *Vault) copy(ctx context.Context, src *phases.Lane, s agent.Snapshot, parent agent.Copy, members []string) (Sent, error) {
	sent, began := Sent{Host: src.Name, Subvolume: s.Source, Since: parent.Created}, time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	to, err := v.Verb(ctx, "receive", text(agent.ReceiveArgs{Snapshot: s, Members: members, Path: v.conf.Path, Host: src.Name}))
	if err != nil {
		return sent, err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	from, err := src.Verb(sending, "send", text(agent.SendArgs{FSID: s.FSID, UUID: s.UUID, Parent: parent.UUID}))
	if err != nil {
		return sent, err
	}
	sent.Bytes, err = io.Copy(to, from)
	if err != nil { // the receiver is gone, and says why
		stop()
	}
	lost := ended(from, "send", src.Name)
	_ = to.CloseWrite()
	got, err := v.answer(to)
	sent.At, sent.Took = got.At, time.Since(began).Seconds()
	if err != nil && lost != nil && sending.Err() == nil {
		err = lost // the receiver only says that the stream ended
	}
	return sent, err
}

func text(v any) string {
	b, _ := json.Marshal(v) // nothing in it can fail
	return string(b)
}

// ended is why one end of a copy did not end well.
func ended(p host.Process, verb, on string) error {
	res, err := p.Wait()
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("`agent %s` on %s ended with exit code %d %s", verb, on, res.Code, strings.TrimSpace(string(res.Stderr)))
	}
	return err
}

// answer is what the receiver says of the copy.
func (v *Vault) answer(p host.Process) (c agent.Copy, err error) {
	var res agent.Response
	err = json.NewDecoder(p).Decode(&res)
	if failed := ended(p, "receive", v.Name); failed != nil {
		return c, failed
	}
	if err == nil && res.Error != nil {
		return c, v.said(res.Error)
	}
	return c, errors.Join(err, json.Unmarshal(res.Result, &c))
}

// Verify looks at both ends of a host's copies and finds what is wrong.
func (v *Vault) Verify(ctx context.Context, r *phases.Run, src *phases.Lane) (Chain, error) {
	c, err := v.copies(ctx, src.Name)
	if err != nil {
		return c, err
	}
	send := "deployer snapshots send --host " + src.Name
	if v.Is(src) {
		send = "# " + src.Name + " is the backup host itself: what lies on the disk that it is of is no backup; another host has to keep its copies"
	}
	wrong := func(what string, hint ...string) {
		c.Wrong = append(c.Wrong, phases.Finding{Host: src.Name, What: what, Hint: hint})
	}
	away := c.look(ctx, r, src)
	if away != nil {
		wrong("where the next copy would start cannot be told: " + away.Error())
	}
	for _, x := range c.Copies {
		switch {
		case x.Partial:
			wrong(x.At+": "+x.Problem, send+"   # deletes it")
		case broken(x) && x.UUID == "": // nothing says that it was ever a copy
			wrong(x.At+": "+x.Problem, v.there("btrfs", "subvolume", "show", x.At)+"   # deployer did not make it: move it elsewhere")
		case broken(x):
			wrong(x.At+": "+x.Problem, v.there("btrfs", "subvolume", "delete", x.At)+"   # it is no backup; or move it elsewhere")
		}
	}
	for _, path := range v.subvolumes {
		switch last := c.newest(path); {
		case last == nil:
			wrong("there is no complete copy of "+path, send)
		case away == nil && !c.Parent(*last):
			wrong(c.missing(path)+" any more: the next copy is a full one", send)
		}
	}
	return c, nil
}

// missing is the end of a chain that is not there: only the last snapshot that
// was copied stays on its host.
func (c Chain) missing(path string) string {
	for _, s := range c.taken {
		copied := func(x agent.Copy) bool { return x.UUID == s.UUID }
		if s.Source == path && s.Run == backupRun && !slices.ContainsFunc(c.Copies, copied) {
			return "the copy of " + path + " that was made last (" + s.Path + ") is not on the backup host"
		}
	}
	return "the snapshot of " + path + " that was copied last is not on " + c.Host
}

// there is what a person types to run a command on the backup host: the shell
// there reads it once more. Single quotes outside: within double ones a shell
// that is typed into expands an exclamation mark.
func (v *Vault) there(words ...string) string {
	for i, w := range words {
		words[i], _ = syntax.Quote(w, syntax.LangBash) // fails for what is no file's name
	}
	return v.typed(strings.Join(words, " "))
}

func (v *Vault) typed(line string) string {
	return "ssh " + v.conf.Address + " '" + strings.ReplaceAll(line, "'", `'\''`) + "'"
}

// Parent tells whether the next copy can start from this one.
func (c Chain) Parent(x agent.Copy) bool { return slices.Contains(c.Parents, x.UUID) }

// Sample is the look of a check: the age of the oldest of the newest copies.
func Sample(ctx context.Context, r *phases.Run, name string) agent.Sample {
	v, err := Open(ctx, r)
	if err != nil {
		return agent.Sample{Detail: err.Error()}
	}
	defer v.Drop()
	c, err := v.copies(ctx, name)
	if err != nil {
		return agent.Sample{Detail: err.Error()}
	}
	s := agent.Sample{OK: len(v.subvolumes) > 0, Detail: "no subvolumes are declared for it", Values: map[string]float64{}}
	for _, path := range v.subvolumes {
		last := c.newest(path)
		if last == nil {
			return agent.Sample{Detail: fmt.Sprintf("%s has no complete copy of %s of %s", c.Backup, path, name)}
		}
		// The host's clock may be ahead of this one.
		if age := max(r.Now().Sub(last.Created), 0); age.Seconds() >= s.Values["age_seconds"] {
			s.Values["age_seconds"] = age.Seconds()
			s.Detail = fmt.Sprintf("the newest copy of %s on %s is %s old", path, c.Backup, age.Round(time.Second))
		}
	}
	return s
}

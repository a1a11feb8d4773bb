package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// vault is the folder PATH/HOST on a backup host: complete copies under the
// names of their snapshots, and the agent's own folder beside them, where what
// is being received lies until it is complete.
type vault struct {
	dir  string
	own  string // records of copies, one that is under way, the lock
	disk *store
}

const vaultOwn, receivingName = ".deployer", "receiving-"

func (a *agent) vault(path, host string, create bool) (vault, error) {
	if err := checkName("host", host); err != nil {
		return vault{}, err
	}
	root, err := a.fs.open(a.host(path), "cannot keep copies in "+path)
	if errors.Is(err, fs.ErrNotExist) {
		return vault{}, &Error{Code: "not-found", Message: "there is no folder " + path, Hint: []string{"btrfs subvolume create " + quote(path)}}
	}
	if err != nil {
		return vault{}, err
	}
	defer root.Close()
	v := vault{dir: filepath.Join(root.Name(), host), own: filepath.Join(root.Name(), host, vaultOwn)}
	v.disk, err = a.openStore(v.own, create)
	return v, err
}

func recordOf(name string) string { return sum([]byte(name))[:32] + ".json" }

// copies lists what a backup host has of a host, oldest first, and says what is
// not complete, by what the kernel and the record of the copy say.
func (a *agent) copies(_ context.Context, args CopiesArgs) ([]Copy, error) {
	list := []Copy{}
	v, err := a.vault(args.Path, args.Host, false)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	defer v.disk.disk.Close()
	entries, err := os.ReadDir(v.dir)
	for _, e := range entries {
		at := filepath.Join(v.dir, e.Name())
		info, err := btrfs.Describe(at)
		if e.Name() == vaultOwn || err != nil { // no subvolume: somebody's own
			continue
		}
		list = append(list, v.judge(at, info))
	}
	temps, failed := v.temps()
	for _, temp := range temps {
		parts, _ := os.ReadDir(temp) // gone: it has ended
		if len(parts) > 0 && !v.disk.held("lock") {
			list = append(list, Copy{At: filepath.Join(temp, parts[0].Name()), Partial: true, Problem: "a partial copy: its transfer was cut short"})
		}
	}
	slices.SortStableFunc(list, func(x, y Copy) int { return x.Created.Compare(y.Created) })
	return list, errors.Join(err, failed)
}

// temps is the folders of copies that are under way, or were.
func (v vault) temps() (list []string, err error) {
	entries, err := os.ReadDir(v.own)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), receivingName) {
			list = append(list, filepath.Join(v.own, e.Name()))
		}
	}
	return list, err
}

// judge tells whether a copy is what was sent. One that was made writable,
// changed and made read-only again still says what it was received from, and
// `btrfs receive` would build on it: but it has a change after it was complete.
func (v vault) judge(at string, info btrfs.Info) (c Copy) {
	known := v.disk.readJSON(recordOf(filepath.Base(at)), &c) == nil
	c.At = at
	switch {
	case info.Received == "" && !info.ReadOnly:
		c.Problem = "it can be written, and was not received to its end"
	case info.Received == "" || !known:
		c.Problem = "it is no copy of deployer's"
	case !info.ReadOnly:
		c.Problem = "it can be written"
	case info.Received != c.UUID || info.Sent != c.Changed:
		c.Problem = "it is a copy of something else (" + info.Received + ")"
	case info.Changed != c.Settled:
		c.Problem = "it was changed after it was received"
	}
	return c
}

// receive is the verb: standard input is the stream, its one line of output a
// Response. A copy gets its place when it is complete and durable; what is cut
// short is deleted, by the next one if this process is killed.
func (a *agent) receive(ctx context.Context, text string) error {
	var args ReceiveArgs
	var res Response
	err := json.Unmarshal([]byte(text), &args)
	if err == nil {
		var c Copy
		if c, err = a.receiveInto(ctx, args); err == nil {
			res.Result, err = json.Marshal(c)
		}
	}
	if err != nil {
		res.Error = asError(err)
	}
	line, err := json.Marshal(res)
	if err == nil {
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	return err
}

func (a *agent) receiveInto(ctx context.Context, args ReceiveArgs) (c Copy, err error) {
	if args.Snapshot.FSID == a.fsidOf(args.Path) {
		return c, invalid("%s is on the file system that %s is on: what lies there is no backup", args.Path, args.Snapshot.Source)
	}
	v, err := a.vault(args.Path, args.Host, true)
	if err != nil {
		return c, err
	}
	alone, err := v.disk.lock("lock", false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return c, &Error{Code: "locked", Message: "another copy to " + v.dir + " is under way", Hint: []string{"pgrep -af 'btrfs receive'"}}
	}
	if err != nil {
		return c, err
	}
	defer alone.Close()
	name := filepath.Base(args.Snapshot.Path)
	at := filepath.Join(v.dir, name)
	if lexists(at) {
		return c, &Error{Code: "exists", Message: at + " is there already"}
	}
	if err := v.clean(); err != nil {
		return c, err
	}
	temp, err := os.MkdirTemp(v.own, receivingName)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, v.clean()) }()
	if err := a.runReceive(ctx, temp); err != nil {
		return c, err
	}
	return v.settle(temp, name, Copy{Snapshot: args.Snapshot, Members: args.Members})
}

// runReceive runs btrfs-progs, confined to its folder: the stream comes from
// another host, and could name any path.
func (a *agent) runReceive(ctx context.Context, dir string) error {
	var said tail
	e, err := a.run(ctx, Program{Args: []string{"btrfs", "receive", "-C", dir}, Stdin: os.Stdin, Stderr: &said})
	text := clean(lastLine(strings.TrimSpace(string(said.cut()))))
	switch {
	case err != nil:
		return &Error{Code: "failed", Message: err.Error(), Hint: []string{"# on the backup host: environment.systemPackages = [ pkgs.btrfs-progs ]"}}
	case e.Over != nil:
		return e.Over
	case e.Code != 0 && strings.Contains(text, "No space left"):
		return &Error{Code: "no-space", Message: text}
	case e.Code != 0:
		return errors.New(cmp.Or(text, fmt.Sprintf("btrfs receive: exit %d", e.Code)))
	}
	return nil
}

// settle checks what was received and gives it its place, by a snapshot: what is
// read-only cannot be moved to another folder. That keeps what it was received from.
func (v vault) settle(temp, name string, want Copy) (Copy, error) {
	entries, err := os.ReadDir(temp)
	if err != nil || len(entries) != 1 {
		return want, errors.Join(err, fmt.Errorf("%d subvolumes arrived, not 1", len(entries)))
	}
	dir, err := btrfs.Open(v.dir)
	if err != nil {
		return want, err
	}
	defer dir.Close()
	from, err := btrfs.Open(filepath.Join(temp, entries[0].Name()))
	if err != nil {
		return want, err
	}
	defer from.Close()
	if err := btrfs.Sync(dir); err != nil { // until then its files are still being written
		return want, err
	}
	info, err := btrfs.Get(from)
	if err != nil {
		return want, err
	}
	want.Settled = info.Changed
	if err := v.disk.writeJSON(recordOf(name), want); err != nil {
		return want, err
	}
	if c := v.judge(filepath.Join(v.dir, name), info); c.Problem != "" {
		return c, errors.New("what arrived is not what was sent: " + c.Problem)
	}
	want.At = filepath.Join(v.dir, name)
	return want, errors.Join(btrfs.Snapshot(from, dir, name), btrfs.Sync(dir))
}

// clean deletes what copies have left that were cut short.
func (v vault) clean() error {
	temps, err := v.temps()
	for _, temp := range temps {
		dir, e := btrfs.Open(temp)
		if e != nil {
			return errors.Join(err, e)
		}
		entries, e := os.ReadDir(temp)
		err = errors.Join(err, e)
		for _, entry := range entries {
			err = errors.Join(err, btrfs.Destroy(dir, entry.Name()))
		}
		dir.Close()
		err = errors.Join(err, os.Remove(temp))
	}
	return err
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

// backupRun is whose snapshots off-host copies are made of.
const backupRun = "backup"

const holdsLock = "holds.lock"

// Copy is one snapshot on a backup host. What the snapshot itself is, is of its
// own host.
type Copy struct {
	Snapshot
	At      string `json:"at,omitempty"`
	Settled uint64 `json:"settled,omitempty"` // the copy's own last change, when it was complete
	Problem string `json:"problem,omitempty"` // why it cannot be relied on; empty: it is complete
	Partial bool   `json:"partial,omitempty"` // what was cut short: the next copy deletes it

	Members []string `json:"members,omitempty"` // sources of all of its set
}

// Set is what the copies of one set have in common: the time in their names.
func (c Copy) Set() string {
	stamp, _, _ := strings.Cut(filepath.Base(c.Path), "-")
	return stamp
}

// SendArgs names a snapshot, and another one that the receiver has as well.
type SendArgs struct {
	FSID   string `json:"fsid"`
	UUID   string `json:"uuid"`
	Parent string `json:"parent,omitempty"`
}

// ReceiveArgs is what comes on standard input, and the folder for copies.
type ReceiveArgs struct {
	Snapshot Snapshot `json:"snapshot"`
	Members  []string `json:"members"` // sources of all of its set
	Path     string   `json:"path"`
	Host     string   `json:"host"` // that it is of
}

// CopiesArgs asks what there is of a host in a folder for copies.
type CopiesArgs struct {
	Path string `json:"path"`
	Host string `json:"host"`
}

// backup takes a set that is to be copied, and holds it: the next copy starts
// from it. It is no part of a run: it needs no lock, and nothing waits for it.
func (a *agent) backup(ctx context.Context, args SnapshotArgs) ([]Snapshot, error) {
	s, err := a.store(true)
	if err != nil {
		return nil, err
	}
	args.Run = backupRun
	if err := a.tidy(s, args.Stamp); err != nil {
		return nil, err
	}
	if err := a.unreceived(args); err != nil {
		return nil, err
	}
	set, err := a.snapshot(ctx, args)
	if err != nil {
		return nil, err
	}
	for _, snap := range set.Snapshots {
		if err := s.hold(HoldArgs{UUID: snap.UUID, By: backupRun, Reason: "the next off-host copy starts from it"}); err != nil {
			return nil, err
		}
	}
	return set.Snapshots, a.letGo(s, args.Paths)
}

// unreceived refuses a set of which a copy would be taken for another's. What
// else is wrong with the set is told when it is taken.
func (a *agent) unreceived(args SnapshotArgs) error {
	set, _ := a.aim(args)
	defer set.close()
	for _, s := range set.shots {
		if s.info.Received != "" {
			return &Error{Code: "invalid", Message: fmt.Sprintf("%s was received as %s and made writable: a copy of it would be taken for that", s.source, s.info.Received),
				Hint: []string{"btrfs subvolume snapshot " + quote(s.source) + " NEW   # has no such past; put it in its place"}}
		}
	}
	return nil
}

// tidy deletes what earlier sets have left whose agent was killed, and forgets
// those of which nothing is there any more. Under the lock of who takes a set:
// what is half-taken then was left.
func (a *agent) tidy(s *store, stamp string) error {
	alone, err := s.lock(runFile(backupRun, pauseLock), true)
	if err != nil {
		return err
	}
	defer alone.Close()
	files, err := s.names("runs/" + backupRun)
	for _, file := range files {
		r := load[setRecord](s, runFile(backupRun, file))
		if !strings.HasPrefix(file, "set-") || r == nil || r.Args.Stamp == stamp {
			continue
		}
		there := func(snap Snapshot) bool { return lexists(snap.Path) }
		if err = errors.Join(err, a.leftovers(r)); err == nil && !slices.ContainsFunc(r.Set.Snapshots, there) {
			err = s.remove(runFile(backupRun, file))
		}
	}
	return err
}

// letGo ends backup's own holds of subvolumes that are not copied any more: no
// later copy of them ever would. Only a set that was taken tells which those are.
func (a *agent) letGo(s *store, paths []string) error {
	holds, err := holdsOf(s)
	for _, was := range a.made() {
		goesOn := func(path string) bool { return within(filepath.Clean(was.Source), filepath.Clean(path)) }
		if err == nil && holds[was.UUID][backupRun] != "" && !slices.ContainsFunc(paths, goesOn) {
			err = s.hold(HoldArgs{UUID: was.UUID, By: backupRun})
		}
	}
	return err
}

// copied says that a snapshot is complete on the backup host: earlier ones of
// the same subvolume have done their work. One that is in use stays until the
// next time.
func (a *agent) copied(ctx context.Context, c Snapshot) ([]Deleted, error) {
	s, err := a.store(true)
	if err != nil {
		return nil, err
	}
	var old DeleteArgs
	for _, was := range a.made() {
		if was.Run != backupRun || was.FSID != c.FSID || was.Source != c.Source || was.UUID == c.UUID || was.Replaced || was.Created.After(c.Created) {
			continue
		}
		if err := s.hold(HoldArgs{UUID: was.UUID, By: backupRun}); err != nil {
			return nil, err
		}
		old.Snapshots = append(old.Snapshots, was)
	}
	return a.deleteSnapshots(ctx, old)
}

// hold keeps a snapshot from being deleted, the last one of a backup chain, which
// the next copy starts from; or no longer does.
func (s *store) hold(args HoldArgs) error {
	alone, err := s.lock(holdsLock, true)
	if err != nil {
		return err
	}
	defer alone.Close()
	holds, err := holdsOf(s)
	if err != nil {
		return err
	}
	if holds[args.UUID] == nil {
		holds[args.UUID] = map[string]string{}
	}
	if holds[args.UUID][args.By] = args.Reason; args.Reason == "" {
		delete(holds[args.UUID], args.By)
	}
	if len(holds[args.UUID]) == 0 {
		delete(holds, args.UUID)
	}
	return s.writeJSON(holdsFile, holds)
}

// send is the verb: its standard output is the stream. While it lasts, nobody
// can delete or change the snapshot.
func (a *agent) send(text string) error {
	var args SendArgs
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		return invalid("cannot read the arguments: %v", err)
	}
	v, err := a.volumes(args.FSID)
	if err != nil {
		return err
	}
	defer v.close()
	f, _, err := v.find(Snapshot{UUID: args.UUID})
	if err != nil {
		return err
	}
	defer f.Close()
	var parent uint64
	if args.Parent != "" {
		p, info, err := v.find(Snapshot{UUID: args.Parent})
		if err != nil {
			return err
		}
		p.Close()
		parent = info.ID
	}
	return btrfs.Send(f, parent, os.Stdout)
}

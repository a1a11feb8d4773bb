package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hbohlen/deployer/phases/agent/btrfs"
)

const (
	previewName = ".deployer-preview-"
	previewMax  = 1000
	previewOld  = time.Hour // one that its maker did not live to delete
	keptForm    = "20060102T150405.000000Z"
)

// preview says what a restore would do to files. The live subvolume changes
// while it is read, so a snapshot of it is compared, and deleted again.
func (a *agent) preview(_ context.Context, args PreviewArgs) (p Preview, err error) {
	var dones []func() error
	defer func() {
		for _, done := range dones {
			err = errors.Join(err, done())
		}
	}()
	v, err := a.volumes(args.Snapshot.FSID)
	if err != nil {
		return p, err
	}
	defer v.close()
	then, was, err := v.find(args.Snapshot)
	if err != nil {
		return p, err
	}
	defer then.Close()
	live, err := btrfs.At(v.top.File, strings.Trim(args.Snapshot.Origin, "/"))
	if err != nil {
		return p, err
	}
	defer live.Close()
	is, err := btrfs.Get(live)
	if err != nil {
		return p, err
	}
	still := func(f *os.File, info btrfs.Info) *os.File {
		if info.ReadOnly || err != nil {
			return f
		}
		var t *os.File
		var done func() error
		if t, done, err = a.temporary(v, f, info.ID); err != nil {
			return f
		}
		p.Temporary, f = t.Name(), t
		dones = append(dones, done)
		return f
	}
	now, before := still(live, is), still(then, was) // what a restore has replaced is writable too
	if err != nil {
		return p, err
	}
	diff, err := v.tree.Compare(before, now)
	p.tell(diff, cmp.Or(args.Max, previewMax))
	if args.Pins {
		p.Pinned = diff.Older
	}
	return p, err
}

// temporary takes a read-only snapshot that lives as long as this call.
func (a *agent) temporary(v *volumes, live *os.File, id uint64) (*os.File, func() error, error) {
	if err := v.writable(); err != nil {
		return nil, nil, err
	}
	var dir *os.File
	err := error(&Error{Code: "invalid", Message: "found no folder for the temporary snapshot of a preview"})
	for _, at := range a.folders(v.FSID) {
		if dir, err = a.fs.folder(a.host(at), v.FSID, v.tree, a.takenAlong(at, []uint64{id})); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, err
	}
	forget(dir, time.Now().Add(-previewOld))
	name := previewName + token()
	if err := btrfs.Snapshot(live, dir, name); err != nil { // which commits
		return nil, nil, errors.Join(err, dir.Close())
	}
	f, err := btrfs.Open(filepath.Join(dir.Name(), name))
	return f, func() error {
		defer dir.Close()
		f.Close()
		return btrfs.Destroy(dir, name)
	}, err
}

// forget deletes what earlier previews could not.
func forget(dir *os.File, before time.Time) {
	entries, _ := os.ReadDir(dir.Name())
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), previewName) {
			continue
		}
		if info, err := btrfs.Describe(filepath.Join(dir.Name(), e.Name())); err == nil && info.ReadOnly && info.Created.Before(before) {
			_ = btrfs.Destroy(dir, e.Name())
		}
	}
}

func (p *Preview) tell(diff btrfs.Diff, most int) {
	p.Lost, p.Reverted, p.Coming, p.Moved, p.Bytes = []string{}, []string{}, []string{}, []Moved{}, diff.Bytes
	for _, c := range diff.Changes {
		switch n := &p.Counts; c.Kind {
		case btrfs.New:
			p.Lost = upTo(most, p.Lost, &n.Lost, c.Path)
		case btrfs.Changed:
			p.Reverted = upTo(most, p.Reverted, &n.Reverted, c.Path)
		case btrfs.Gone:
			p.Coming = upTo(most, p.Coming, &n.Coming, c.Path)
		default:
			p.Moved = upTo(most, p.Moved, &n.Moved, Moved{Then: c.Path, Now: c.To})
		}
	}
}

func upTo[T any](most int, list []T, n *int, x T) []T {
	if *n++; *n > most {
		return list
	}
	return append(list, x)
}

// files puts a file or a folder out of a snapshot where it is asked for, by
// shared extents. What is there is kept beside it, under a name with the time.
func (a *agent) files(ctx context.Context, args FilesArgs) (r FilesResult, err error) {
	parent, dir, err := a.between(args)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	defer dir.Close()
	base, temp := filepath.Base(args.To), ".new."+token()
	var said strings.Builder
	e, err := a.run(ctx, Program{Args: []string{"cp", "-a", "--reflink=auto", "--", fdPath(parent, filepath.Base(args.Path)), fdPath(dir, temp)}, Stderr: &said})
	if err == nil && e.Code != 0 {
		err = errors.New(strings.TrimSpace(said.String()))
	}
	if err != nil {
		return r, errors.Join(err, os.RemoveAll(fdPath(dir, temp)))
	}
	fd := int(dir.Fd())
	if err = unix.Renameat2(fd, temp, fd, base, unix.RENAME_NOREPLACE); errors.Is(err, unix.EEXIST) {
		// The new one gets the kept one's name, then both change places: at no
		// moment is nothing there, or a file without a name that tells.
		kept := shorten(base + "." + time.Now().UTC().Format(keptForm))
		if err = unix.Renameat2(fd, temp, fd, kept, unix.RENAME_NOREPLACE); err == nil {
			temp = kept
			err = unix.Renameat2(fd, kept, fd, base, unix.RENAME_EXCHANGE)
		}
		if err == nil {
			r.Kept = filepath.Join(filepath.Dir(args.To), kept)
		}
	}
	if err != nil {
		return r, errors.Join(err, os.RemoveAll(fdPath(dir, temp)))
	}
	return r, unix.Syncfs(fd)
}

// filesDry tells whether files could do it, and whether something is there.
func (a *agent) filesDry(_ context.Context, args FilesArgs) (r FilesResult, err error) {
	parent, dir, err := a.between(args)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	defer dir.Close()
	r.There = lexists(fdPath(dir, filepath.Base(args.To)))
	return r, nil
}

// between opens the folder in the snapshot that has what is asked for, and the
// one on the host that it comes into.
func (a *agent) between(args FilesArgs) (parent, dir *os.File, err error) {
	v, err := a.volumes(args.Snapshot.FSID)
	if err != nil {
		return nil, nil, err
	}
	defer v.close()
	then, _, err := v.find(args.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	defer then.Close()
	if args.To != filepath.Clean(args.To) || !filepath.IsAbs(args.To) || args.To == "/" {
		return nil, nil, invalid("%q is not an absolute path", args.To)
	}
	base := filepath.Clean("/" + args.Path)
	if parent, err = btrfs.At(then, strings.Trim(filepath.Dir(base), "/")); err == nil {
		_, err = os.Lstat(fdPath(parent, filepath.Base(base)))
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		err = &Error{Code: "not-found", Message: fmt.Sprintf("there is no %s in the snapshot %s", base, args.Snapshot.Path), Hint: []string{"# on the host: ls -a " + quote(args.Snapshot.Path)}}
	}
	if err == nil {
		dir, err = a.openReal(filepath.Dir(args.To))
	}
	if err != nil && parent != nil {
		parent.Close()
	}
	return parent, dir, err
}

// openReal opens a folder of the host, but follows no link: whoever may make one
// in their own folder could lead root anywhere.
func (a *agent) openReal(dir string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, a.host(dir), &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ELOOP) {
		leads, _ := filepath.EvalSymlinks(a.host(dir))
		return nil, &Error{Code: "invalid", Message: fmt.Sprintf("%s goes through a symbolic link, to %s", dir, strings.TrimPrefix(leads, a.Prefix)), Hint: []string{"# if that is meant, give the real path by --to"}}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), a.host(dir)), nil
}

// fdPath is a path below an open folder, for a program: nobody can lead it
// elsewhere by renaming what is above.
func fdPath(f *os.File, path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), filepath.Clean("/"+path))
}

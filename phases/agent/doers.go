package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileMax is how much of a file fits into one answer, encoded.
const fileMax = 5 << 20

func (a *agent) fileGet(_ context.Context, ref FileRef) (File, error) {
	if ref.Max <= 0 || ref.Max > fileMax {
		ref.Max = fileMax
	}
	link, _ := os.Readlink(a.host(ref.Path))
	f, err := os.OpenFile(a.host(ref.Path), os.O_RDONLY|unix.O_NONBLOCK, 0) // never waits for a FIFO's other end
	if errors.Is(err, fs.ErrNotExist) {
		return File{Path: ref.Path, Link: link}, nil
	}
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = invalid("%s is not a regular file", ref.Path)
	}
	if err != nil {
		return File{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, ref.Max+1))
	if err == nil && int64(len(data)) > ref.Max {
		err = invalid("%s is larger than %d bytes", ref.Path, ref.Max)
	}
	return File{Path: ref.Path, Digest: sum(data), Mode: uint32(st.Mode().Perm()), Owner: ownerOf(st), Content: data, Link: link, Target: a.target(ref.Path)}, err
}

// target is the file that a path leads to, "" if that is the path itself.
func (a *agent) target(path string) string {
	real, err := filepath.EvalSymlinks(a.host(a.resolve(path)))
	if real = strings.TrimPrefix(real, a.Prefix); err != nil || real == path {
		return ""
	}
	return real
}

func ownerOf(st fs.FileInfo) *Owner {
	sys := st.Sys().(*syscall.Stat_t)
	return &Owner{int(sys.Uid), int(sys.Gid)}
}

// doWriteFile makes a file what the digest says, with content from the
// operation or from the run's folder; no digest means no file. A link that is in
// its place goes: nothing is ever written to where one leads.
func (a *agent) doWriteFile(_ context.Context, run string, op Operation) (effect, error) {
	if !filepath.IsAbs(op.Path) || filepath.Clean(op.Path) != op.Path {
		return effect{}, fmt.Errorf("%q is not an absolute path", op.Path)
	}
	dir, name := filepath.Split(a.host(op.Path))
	st, err := os.Lstat(a.host(op.Path))
	if err == nil && st.Mode().Type()&^fs.ModeSymlink != 0 {
		return effect{}, fmt.Errorf("%s is not a regular file: left as it is", op.Path)
	}
	switch {
	case op.Link != "":
		if is, _ := os.Readlink(a.host(op.Path)); is == op.Link {
			return effect{already: true}, nil
		}
		return effect{}, a.linkAt(dir, name, op.Link)
	case op.Digest == "":
		return effect{already: err != nil}, a.removeAt(dir, name)
	}
	want := content{mode: cmp.Or(op.Mode&0o777, 0o644), owner: op.Owner}
	if err == nil && st.Mode().IsRegular() {
		want.mode, want.owner = cmp.Or(op.Mode&0o777, uint32(st.Mode().Perm())), cmp.Or(op.Owner, ownerOf(st))
		is, err := os.ReadFile(a.host(op.Path))
		if err == nil && sum(is) == op.Digest && uint32(st.Mode().Perm()) == want.mode && *ownerOf(st) == *want.owner {
			return effect{already: true}, nil
		}
	}
	if want.data, err = a.content(run, op); err != nil {
		return effect{}, err
	}
	return effect{}, a.inDir(dir, func(d Disk) error { return replace(d, name, false, want.create) })
}

func (a *agent) content(run string, op Operation) ([]byte, error) {
	data := op.Content
	if data == nil && op.Digest != sum(nil) {
		s, err := a.store(false)
		if err != nil {
			return nil, err
		}
		if data, err = s.read(contentFile(run, op.Digest)); err != nil {
			return nil, err
		}
	}
	if sum(data) != op.Digest {
		return nil, fmt.Errorf("the content for %s is not %s", op.Path, op.Digest)
	}
	return data, nil
}

func contentFile(run, digest string) string {
	return path.Join("runs", run, "files", path.Base(digest))
}

// doUnits starts what should be active and is not. A unit that was started often
// of late is refused by its start limit, unless its failures are forgotten first.
func (a *agent) doUnits(ctx context.Context, _ string, op Operation) (effect, error) {
	idle, err := a.idle(ctx, op.Units)
	if err != nil || len(idle) == 0 {
		return effect{already: err == nil}, err
	}
	_ = a.Units.Do(ctx, "reset-failed", idle...) // an error for those that are not loaded
	startErr := a.startAll(ctx, idle)
	still, err := a.idle(ctx, idle)
	if startErr == nil {
		still = slices.DeleteFunc(still, func(u string) bool {
			ends, well := a.ends(ctx, u)
			return ends && well
		})
	}
	if err == nil && len(still) > 0 {
		err = fmt.Errorf("not active: %s (%w)", strings.Join(still, ", "), firstOf(startErr, errors.New("started, but ended again")))
	}
	return effect{message: "started " + strings.Join(idle, ", ")}, err
}

// startAll waits until units have started, but not for those that end by
// themselves: that may take hours. Targets come last and by themselves: what they
// want may have been stopped by a person, or have done its work.
func (a *agent) startAll(ctx context.Context, units []string) error {
	var errs []error
	stay, targets := apart(units)
	stay = slices.DeleteFunc(stay, func(u string) bool {
		ends, _ := a.ends(ctx, u)
		if ends {
			errs = append(errs, a.Units.Do(ctx, "queue", u))
		}
		return ends
	})
	if len(stay) > 0 {
		errs = append(errs, a.Units.Do(ctx, "start", stay...))
	}
	if len(targets) > 0 {
		errs = append(errs, a.Units.Do(ctx, "reach", targets...))
	}
	return errors.Join(errs...)
}

// apart splits targets from what they are reached with.
func apart(units []string) (others, targets []string) {
	for _, u := range units {
		if filepath.Ext(u) == ".target" {
			targets = append(targets, u)
		} else {
			others = append(others, u)
		}
	}
	return others, targets
}

// ends tells whether a unit is one that is not active when it has done what it
// is for, and whether that went well so far.
func (a *agent) ends(ctx context.Context, unit string) (ends, well bool) {
	p, err := a.Units.Show(ctx, unit, "Type", "RemainAfterExit", "Result")
	return err == nil && p["Type"] == "oneshot" && p["RemainAfterExit"] != "yes", p["Result"] == "success"
}

func firstOf(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (a *agent) idle(ctx context.Context, want []string) (list []string, err error) {
	for _, u := range want { // each by itself: a list has no aliases
		p, err := a.Units.Show(ctx, u, "ActiveState")
		if err != nil {
			return nil, err
		}
		if p["ActiveState"] != "active" && p["ActiveState"] != "reloading" {
			list = append(list, u)
		}
	}
	return list, nil
}

func (a *agent) doStopJob(ctx context.Context, _ string, op Operation) (effect, error) {
	if err := checkUnit(op.Unit); err != nil {
		return effect{}, err
	}
	on, err := running(ctx, a.Units, op.Unit)
	if err == nil && !on {
		return effect{already: true}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*stopLimit)
	defer cancel()
	err = a.Units.Do(ctx, "stop", op.Unit)
	if on, e := running(context.WithoutCancel(ctx), a.Units, op.Unit); e != nil || on {
		return effect{}, fmt.Errorf("cannot stop %s: %w", op.Unit, firstOf(errors.Join(err, e), errors.New("it runs on")))
	}
	return effect{}, nil
}

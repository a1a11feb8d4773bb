package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/agent"
)

// chooseData decides of every subvolume whether its data goes back: by --data, as
// the rollback that this one goes on with did, by its policy, or by asking. A dry
// run leaves open what nobody decided.
func (a *app) chooseData(ctx context.Context, r *phases.Run, o *rollbackOptions, ask *asker) error {
	switch {
	case len(o.subvolumes) > 0 && o.data == "":
		return usage(fmt.Errorf("--subvolume says whose data: what is done with it is missing"), a.again("--data keep"), a.again("--data restore"))
	case o.data != "" && o.data != phases.Keep && o.data != phases.Restore:
		return usage(fmt.Errorf("--data is keep or restore, not %q", o.data))
	}
	known := map[string]bool{}
	for _, l := range r.Lanes {
		for _, s := range l.Recipe.Snapshots {
			known[s.Source] = true
		}
		if o.data == "" {
			if goes, err := l.GoesBackAlready(ctx, r.Undoes); err != nil {
				return phases.At(l.Name, err)
			} else if goes {
				continue
			}
		}
		back, err := a.chosen(ctx, l, o, ask)
		if err != nil {
			return err
		}
		l.Choose(ctx, back)
		if err := l.Stocked(ctx); err != nil {
			return phases.At(l.Name, err)
		}
	}
	for _, at := range o.subvolumes {
		if !known[at] {
			return usage(fmt.Errorf("run %s has no snapshot of %s", r.Undoes, at), "deployer show "+r.Undoes)
		}
	}
	return nil
}

// chosen are the snapshots of a lane that go back.
func (a *app) chosen(ctx context.Context, l *phases.Lane, o *rollbackOptions, ask *asker) (back []agent.Snapshot, err error) {
	for _, s := range l.Recipe.Snapshots {
		do := cmp.Or(o.says(s), o.said(l.Name, s), s.Policy)
		if do == phases.Ask && !o.dryRun {
			if do, err = a.askData(ctx, ask, l, s); err != nil {
				return nil, err
			}
		}
		if do == phases.Restore {
			back = append(back, s)
		}
	}
	return back, nil
}

// said is what the rollback that this one goes on with did with a subvolume.
func (o *rollbackOptions) said(host string, s agent.Snapshot) string {
	back, chosen := o.goesBack[host]
	switch {
	case slices.Contains(back, s.Source):
		return phases.Restore
	case chosen:
		return phases.Keep
	}
	return ""
}

// goingBack are the subvolumes whose data a rollback restores, by host.
func goingBack(r *phases.Run) map[string][]string {
	by := map[string][]string{}
	for _, l := range r.Lanes {
		by[l.Name] = []string{}
		for _, s := range l.Recipe.Snapshots {
			if l.GoesBack(s) {
				by[l.Name] = append(by[l.Name], s.Source)
			}
		}
	}
	return by
}

// says is what --data says of a subvolume, or of one that it is nested in.
func (o *rollbackOptions) says(s agent.Snapshot) string {
	named := slices.ContainsFunc(o.subvolumes, func(at string) bool {
		return s.Source == at || strings.HasPrefix(s.Source, strings.TrimSuffix(at, "/")+"/")
	})
	if named || s.Policy == phases.Ask && len(o.subvolumes) == 0 {
		return o.data
	}
	return ""
}

func (a *app) askData(ctx context.Context, ask *asker, l *phases.Lane, s agent.Snapshot) (string, error) {
	if !ask.interactive() {
		return "", &phases.Failure{Exit: phases.ExitUsage, Host: l.Name, Safe: "nothing was changed on any host", Hint: []string{a.again("--data keep"), a.again("--data restore")},
			Err: fmt.Errorf("the data of %s on %s may stay or go back (on_rollback: ask), and nobody can be asked", s.Source, l.Name)}
	}
	a.Notef("%s", a.Preview(previewOf(ctx, l, s, false)))
	answer, err := ask.line(ctx, fmt.Sprintf("%s on %s: keep the data as it is, or restore it? [keep/restore] ", s.Source, l.Name))
	if err != nil {
		return "", err
	}
	if answer != phases.Keep && answer != phases.Restore {
		return "", usage(fmt.Errorf("%q is neither keep nor restore", answer))
	}
	return answer, nil
}

// dataOf is what would become of each subvolume. Who does not read it waits for
// no preview.
func dataOf(ctx context.Context, l *phases.Lane, o *rollbackOptions) (list []view.Data) {
	for _, s := range l.Recipe.Snapshots {
		d, do := view.Data{Snapshot: s}, phases.Keep
		switch {
		case l.GoesBack(s):
			do = phases.Restore
		case o.dryRun && s.Policy == phases.Ask && o.says(s) == "":
			do = phases.Ask
		}
		if do != phases.Keep && (o.dryRun || !o.yes) {
			d = previewOf(ctx, l, s, false)
		}
		d.Do = do
		list = append(list, d)
	}
	return list
}

func previewOf(ctx context.Context, l *phases.Lane, s agent.Snapshot, pins bool) view.Data {
	var p agent.Preview
	if err := l.Call(ctx, agent.OpPreview, agent.PreviewArgs{Snapshot: s, Pins: pins}, &p); err != nil {
		return view.Data{Snapshot: s, Problem: err.Error()}
	}
	return view.Data{Snapshot: s, Preview: &p}
}

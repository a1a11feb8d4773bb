package agent

import (
	"cmp"
	"context"
	"fmt"
)

// doBoot makes a system the boot default by its own program, and reads it back:
// that program's exit code has lied (nixpkgs pull request 501155).
func (a *agent) doBoot(ctx context.Context, _ string, op Operation) (effect, error) {
	want := Boot{}
	if op.Boot != nil {
		want = *op.Boot
	}
	op.System = cmp.Or(op.System, want.System)
	top, err := a.toplevel(op)
	if err != nil {
		return effect{}, err
	}
	system := a.resolve(top)
	if is, err := a.boot(); err == nil && is.System == system && (want.Digest == "" || want.Digest == is.Digest) {
		return effect{already: true}, nil
	}
	e, err := a.doActivate(ctx, "", Operation{System: op.System, Special: op.Special, Action: "boot"})
	if err != nil {
		return effect{}, err
	}
	is, err := a.boot()
	switch {
	case err != nil:
		return e, fmt.Errorf("cannot read the boot loader back: %w", err)
	case is.Loader == "":
		e.message = "not verified: no boot loader that can be read was found"
	case is.System != system:
		return e, fmt.Errorf("the boot loader was written, but its default %q starts %s, not %s", is.Default, is.System, system)
	case want.Digest != "" && want.Digest != is.Digest:
		e.message = "the default is as wanted; other entries of the menu differ from before"
	}
	return e, nil
}

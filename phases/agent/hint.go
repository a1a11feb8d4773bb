package agent

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// hint is what a person types to do an operation by hand: absolute store
// paths, nothing that needs a network, a PATH or deployer.
func (a *agent) hint(run string, op Operation) []string {
	top := op.System
	if top == "" && op.Boot != nil {
		top = op.Boot.System
	}
	if op.Special != "" {
		top += "/specialisation/" + op.Special
	}
	switch op.Op {
	case DoStopJob:
		return []string{"systemctl stop " + quote(op.Unit)}
	case DoActivate:
		return []string{quote(top+"/bin/switch-to-configuration") + " " + quote(op.Action)}
	case DoBoot:
		return []string{quote(top+"/bin/switch-to-configuration") + " boot"}
	case DoTrial:
		return trialHint(op, cmp.Or(op.Boot, &Boot{}))
	case DoReboot:
		return []string{"readlink -f /run/booted-system   # if that is " + quote(top) + ": no reboot is needed", "sync", "systemctl reboot   # then go on here"}
	case DoProfile:
		return profileHint(op, cmp.Or(op.Profile, SystemProfile))
	case DoWriteFile:
		return []string{a.fileHint(run, op)}
	case DoUnits:
		return startHint(op.Units)
	case DoData:
		return dataHint(op.Data)
	case DoStart:
		var units []string
		if s, err := a.runStore(run); err == nil {
			for _, r := range restored(s, run) {
				units = append(units, r.Units...)
			}
		}
		if len(units) == 0 { // the restore is still to come
			return []string{"# start the units that were stopped for restore-data"}
		}
		if idle, err := a.idle(context.Background(), units); err == nil && len(idle) > 0 {
			units = idle
		}
		return startHint(units)
	case DoUnpin:
		return []string{"rm -f -- " + quote(path.Join(gcroots, run+"-"+op.Name))}
	}
	return nil
}

func startHint(units []string) []string {
	list := []string{"systemctl reset-failed -- " + quoteAll(units)}
	others, targets := apart(units)
	if len(others) > 0 {
		list = append(list, "systemctl start -- "+quoteAll(others))
	}
	if len(targets) > 0 {
		list = append(list, "systemctl start "+alone+" -- "+quoteAll(targets))
	}
	return list
}

// dataHint is the way by names: without an exchange, so not for a power cut.
func dataHint(d *Data) []string {
	if d == nil {
		return nil
	}
	list := []string{"# stop what uses these subvolumes and unmount them first"}
	for _, s := range d.Snapshots {
		top, live := "/run/deployer-top", quote("/run/deployer-top/"+s.Origin)
		if s.Origin == "" { // a command without the name would move the top level itself
			list = append(list, "# "+quote(s.Name)+" is of no subvolume that has a name here: nothing takes its place")
			continue
		}
		if d.Itself {
			list = append(list, "mkdir -p "+top+"; mount -o subvolid=5 UUID="+quote(s.FSID)+" "+top,
				"btrfs subvolume list -u "+top+" | grep "+quote(s.ParentUUID)+"   # if its path is not "+quote(s.Origin)+":",
				"mv -T -- "+live+" "+quote(top+"/"+s.Origin+".replaced")+"; mv -T -- "+top+"/PATH "+live, "umount "+top)
			continue
		}
		list = append(list, "mkdir -p "+top+"; mount -o subvolid=5 UUID="+quote(s.FSID)+" "+top,
			"btrfs subvolume snapshot "+quote(top+"/"+s.Name)+" "+quote(top+"/"+s.Origin+".restored"),
			"mv -T -- "+live+" "+quote(top+"/"+s.Origin+".replaced")+" && mv -T -- "+quote(top+"/"+s.Origin+".restored")+" "+live,
			"# subvolumes that were nested in it are in .replaced now: mv each to its place", "umount "+top)
	}
	return append(list, "# mount them again (findmnt, /etc/fstab), start what was stopped")
}

func (a *agent) fileHint(run string, op Operation) string {
	switch {
	case op.Link != "":
		return "ln -sfn -- " + quote(op.Link) + " " + quote(op.Path)
	case op.Digest == "":
		return "rm -f -- " + quote(op.Path)
	}
	owner := ""
	if op.Owner != nil {
		owner = fmt.Sprintf(" -o %d -g %d", op.Owner.UID, op.Owner.GID)
	}
	return fmt.Sprintf("install -m %04o%s -- %s %s", cmp.Or(op.Mode, 0o644), owner, quote(filepath.Join(a.Root, contentFile(run, op.Digest))), quote(op.Path))
}

func profileHint(op Operation, profile string) []string {
	env, set := "nix-env", "--switch-generation "+strconv.Itoa(op.Generation)
	if op.System != "" {
		env, set = quote(op.System+"/sw/bin/nix-env"), "--set "+quote(op.System)
	}
	env += " -p " + quote(profile)
	if op.Drop == 0 {
		return []string{env + " " + set}
	}
	link := fmt.Sprintf("%s-%d-link", profile, op.Drop)
	return []string{env + " " + set, fmt.Sprintf("[ \"$(readlink %s)\" != %s ] || %s --delete-generations %d", quote(link), quote(op.DropSystem), env, op.Drop)}
}

func trialHint(op Operation, stays *Boot) []string {
	rewrite := quote(stays.System+"/bin/switch-to-configuration") + " boot"
	once, never := "bootctl set-oneshot ENTRY   # of: bootctl list", "bootctl set-oneshot ''"
	if stays.Loader == "grub" {
		once, never = `grub-editenv /boot/grub/grubenv set "next_entry=NixOS - Profile 'deployer'>0"`, "grub-editenv /boot/grub/grubenv unset next_entry"
	}
	if op.System == "" {
		return []string{never, "rm -f -- " + TrialProfile + " " + TrialProfile + "-*-link", rewrite}
	}
	return []string{profileHint(op, TrialProfile)[0], rewrite, once}
}

// restoreText is the recipe for a person at a rescue console.
func (a *agent) restoreText(r Recipe) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("How to put %s back to what it was before run %s", r.Host, r.Run)
	p("Written by deployer, %s. Nothing here needs a network.", r.Written.UTC().Format(time.RFC3339))
	p("\nBefore the run this host was:")
	for _, line := range before(r.Before) {
		p("  %s", line)
	}
	p("\nAs root, in this order; go on after a command that fails:")
	for i, op := range r.Operations {
		p("\n  # %d. %s", i+1, op.Op)
		for _, h := range a.hint(r.Run, op) {
			p("  %s", h)
		}
	}
	p("\nOr all of it at once, by the agent (its digest is the newest file's name):")
	p("  ls -t %s/bin; %s/bin/DIGEST restore %s", a.Root, a.Root, quote(r.Run))
	p("\nHow to check:")
	p("  readlink -f /run/current-system      # %s", r.Before.System)
	p("  readlink -f %s   # %s", SystemProfile, r.Before.Profile.System)
	p("  systemctl --failed                   # before: %s", strings.Join(r.Before.Failed, " "))
	for _, s := range r.Snapshots {
		p("\nSnapshot of %s, read-only, taken before the run:\n  %s", s.Source, s.Path)
	}
	return clean(b.String())
}

func before(f Facts) []string {
	return []string{
		"running system:  " + f.System + " " + f.Specialisation,
		"booted system:   " + f.Booted,
		fmt.Sprintf("system profile:  generation %d, %s", f.Profile.Generation, f.Profile.System),
		fmt.Sprintf("boot default:    %s %q, %s", f.Boot.Loader, f.Boot.Default, f.Boot.System),
		"boot id:         " + f.BootID,
		"failed units:    " + strings.Join(f.Failed, " "),
	}
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// quote makes one word of a POSIX shell's command line.
func quote(word string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%=,", r)
	}
	if word != "" && strings.TrimLeftFunc(word, safe) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

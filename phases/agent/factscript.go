package agent

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FactsScript learns of a host without an agent what a login user can learn,
// and changes nothing: `sh -s -- PATH…` with this on standard input.
//
//go:embed facts.sh
var FactsScript string

// ParseFacts reads what FactsScript printed; a login shell may have printed
// more around it.
func ParseFacts(out []byte) (Facts, error) {
	values, err := keyValues(string(out))
	if err != nil {
		return Facts{}, err
	}
	one := func(key string) string { return strings.Join(values[key][:min(1, len(values[key]))], "") }
	f := Facts{
		Hostname: one("hostname"), BootID: one("boot_id"), OS: strings.Trim(one("os"), `"'`), User: one("user"), Root: one("uid") == "0",
		Nix: word(one("nix"), 2), Systemd: word(one("systemd"), 1), System: one("current-system"), Booted: one("booted-system"),
		Module: one("module") != "", StateDir: scriptStateDir(one("state_dir")), Pending: values["pending"], Foreign: values["foreign"], Missing: values["missing"],
		Launcher: one("launcher") != "", OpenRun: one("open_run"), Unknown: values["unknown"], Space: []Space{}, Failed: []string{},
	}
	f.Kernel, f.Arch, _ = strings.Cut(one("uname"), " ")
	f.Time, _ = time.Parse(time.RFC3339, one("time"))
	for _, n := range values["boot_bytes"] {
		size, _ := strconv.ParseUint(n, 10, 64)
		f.BootBytes += size
	}
	if !slices.Contains(f.Unknown, "failed") {
		f.Failed = names(parseUnits(strings.Join(values["unit"], "\n")), func(u Unit) bool { return u.Active == "failed" })
	}
	f.Profile = scriptProfile(one("profile"), values["generation"], values["target"])
	f.Specialisation = scriptSpecialisation(f.System, values["specialisation"])
	f.Boot = scriptBoot(one("boot"), values["bootline"])
	scriptSpace(&f, values["space_path"], values["space"])
	f.Sudo = scriptSudo(one("sudo"), one("sudo_refused"))
	scriptTrust(&f, one("nix.trusted-users "), one("nix.trusted-public-keys "), one("groups"), one("store"))
	slices.Sort(f.Unknown)
	return f, nil
}

// keyValues is what lies between the marks.
func keyValues(text string) (map[string][]string, error) {
	_, text, begun := strings.Cut(text, "deployer-facts=1\n")
	values := map[string][]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key == "end" && begun {
			return values, nil
		}
		if ok {
			values[key] = append(values[key], clean(value))
		}
	}
	return nil, &Error{Code: "failed", Message: "cannot read the host's facts: the answer is not complete"}
}

// scriptStateDir reads mode, owner, inode and file system: a subvolume's root
// is always inode 256.
func scriptStateDir(text string) *StateDir {
	var d StateDir
	var inode int
	if _, err := fmt.Sscanf(text, "%o %d %d %s", &d.Mode, &d.Owner, &inode, &d.FS); err != nil {
		return nil
	}
	d.Subvolume = d.FS == "btrfs" && inode == 256
	return &d
}

func scriptProfile(link string, names, targets []string) Profile {
	p := Profile{Path: SystemProfile, Generation: generation("system", link)}
	if len(names) != len(targets) {
		return p
	}
	for i, name := range names {
		p.add(name, func() string { return targets[i] })
	}
	p.System = p.at(p.Generation)
	return p
}

func scriptSpecialisation(system string, list []string) string {
	for _, s := range list {
		if name, top, _ := strings.Cut(s, " "); top == system && system != "" {
			return name
		}
	}
	return ""
}

// scriptBoot puts the files together again from grep's FILE:LINE.
func scriptBoot(loader string, bootlines []string) Boot {
	var files []bootFile
	for _, l := range bootlines {
		name, line := splitBootLine(l)
		if len(files) == 0 || files[len(files)-1].name != name {
			files = append(files, bootFile{name: name})
		}
		last := &files[len(files)-1]
		last.lines = append(last.lines, line)
	}
	switch {
	case loader == "systemd-boot":
		return systemdBoot(files, "")
	case loader == "grub" && len(files) == 1:
		files[0].name = path.Base(files[0].name)
		return grub(files[0])
	}
	return Boot{}
}

func splitBootLine(l string) (name, line string) {
	for _, ext := range []string{".conf:", ".cfg:"} {
		if i := strings.Index(l, ext); i >= 0 {
			return l[:i+len(ext)-1], l[i+len(ext):]
		}
	}
	name, line, _ = strings.Cut(l, ":")
	return name, line
}

func scriptSpace(f *Facts, paths, numbers []string) {
	if len(paths) != len(numbers) {
		f.Unknown = append(f.Unknown, "space")
		return
	}
	for i, p := range paths {
		s := Space{Path: p}
		if _, err := fmt.Sscan(numbers[i], &s.FS, &s.Total, &s.Free); err != nil {
			f.Unknown = append(f.Unknown, "space "+p)
			continue
		}
		f.Space = append(f.Space, s)
	}
}

func scriptSudo(text, refused string) string {
	if refused != "" && text == "" {
		return "sudo does not allow " + LauncherPath
	}
	return text
}

// scriptTrust prefers the daemon's own word (Nix 2.15 and later) over its settings.
func scriptTrust(f *Facts, users, keys, groups, store string) {
	f.TrustedKeys = strings.Fields(strings.TrimPrefix(keys, " "))
	var said struct{ Trusted *int }
	if json.Unmarshal([]byte(store), &said) == nil && said.Trusted != nil {
		trusted := *said.Trusted != 0
		f.Trusted = &trusted
		return
	}
	if users == "" && !f.Root {
		if f.Nix != "" {
			f.Unknown = append(f.Unknown, "trusted")
		}
		return
	}
	trusted := f.Root || slices.ContainsFunc(strings.Fields(users), func(u string) bool {
		return u == "*" || u == f.User || strings.HasPrefix(u, "@") && slices.Contains(strings.Fields(groups), u[1:])
	})
	f.Trusted = &trusted
}

// word is the n-th word of a text: "nix (Nix) 2.26.3", "systemd 257 (257.13-1~deb13u1)".
func word(text string, n int) string {
	words := strings.Fields(text)
	if len(words) <= n {
		return ""
	}
	return words[n]
}

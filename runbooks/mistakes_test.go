package runbooks_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hbohlen/deployer/runbooks"
)

const (
	goodProject = `version: 1
hosts: {stage: {address: s.example, system: s}, prod: {address: p.example, system: p}}
checks: {ok: {unit: a.service}}
`
	goodRunbook = `version: 1
phases:
  - build: {hosts: [stage, prod]}
  - switch: {host: prod}
  - validate: {checks: [ok]}
`
)

// mistakes loads a project and a runbook from texts and gives what is wrong
// with them, one on a line, without their folder.
func mistakes(t *testing.T, project, runbook string, vars map[string]string) []string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deployer.yaml"), project)
	write(t, filepath.Join(dir, "r.yaml"), runbook)
	_, _, err := runbooks.Load(runbooks.Options{Project: dir, Runbook: "r", Vars: vars})
	if err == nil {
		return nil
	}
	var all *runbooks.Errors
	if !errors.As(err, &all) {
		t.Fatalf("%T is not *Errors: %v", err, err)
	}
	return strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGoodFilesHaveNoMistakes(t *testing.T) {
	expect(t, mistakes(t, goodProject, goodRunbook, nil))
}

// Each mistake that a line of deployer.yaml can hold, alone in its file.
func TestMistakesOfAProject(t *testing.T) {
	for line, want := range map[string]string{
		`hots: {}`:     "4:1: deployer.yaml has no key `hots`; did you mean `hosts`?",
		`flake: [a]`:   "4:8: `flake` must be a word, not a list",
		`flake: ""`:    "4:8: `flake` has no value",
		`version: 1`:   "4:1: `version` stands here twice; it is already at 1:1",
		`backup: here`: "4:9: `backup` must be a section, not a word",
		`plugins: [a]`: "4:10: `plugins` must be a section, not a list",
		`metrics: {"a b": {scrape: "http://h/m"}}`:                      "4:11: `metrics`: `a b` is not a name; use letters, digits, `-`, `_` and `.`",
		`metrics: {m: {}}`:                                              "4:14: a metric needs one of `scrape` or `prometheus`",
		`metrics: {m: {scrape: "http://h", prometheus: "http://h"}}`:    "4:35: a metric is about one thing; `scrape` and `prometheus` are two",
		`metrics: {m: {prometheus: "http://h"}}`:                        "4:14: a metric needs `query`",
		`metrics: {m: {scrape: "http://h", query: q}}`:                  "4:42: `query` means nothing with `scrape`",
		`metrics: {m: {scrape: "h:9100"}}`:                              "4:23: `scrape`: `h:9100` is not a web address; it begins with http:// or https://",
		`metrics: {m: {scrape: "http://u:p@h"}}`:                        "4:23: `scrape`: `http://u:p@h` carries a name or password; secrets come from env, file or command",
		`metrics: {m: {scrape: "http://${hst}/"}}`:                      "4:31: no variable `${hst}`; did you mean `host`?",
		`snapshots: {dir: snaps}`:                                       "4:18: `dir`: `snaps` must be an absolute path; write /snaps",
		`snapshots: {dir: /a//b/}`:                                      "4:18: `dir`: `/a//b/` must be an absolute path; write /a/b",
		`snapshots: {keep: {good_runs: many}}`:                          "4:31: `good_runs` must be a whole number, not `many`",
		`snapshots: {keep: {good_runs: 0}}`:                             "4:31: `good_runs` must be at least 1, not 0",
		`snapshots: {subvolumes: {/a: kep}}`:                            "4:30: `on_rollback` must be `keep`, `restore` or `ask`, not `kep`; did you mean `keep`?",
		`snapshots: {subvolumes: {/a: {on_rollback: ask, pause: [a]}}}`: "4:57: `pause`: `a` is not the name of a unit; write it with its kind, like caddy.service",
		`backup: {off-host: {address: h, path: srv}}`:                   "4:39: `path`: `srv` must be an absolute path; write /srv",
		`plugins: {p: {path: /p}}`:                                      "4:14: a plugin needs `sha256`",
		`plugins: {p: {path: /p, sha256: abc}}`:                         "4:33: `sha256`: `abc` is not a SHA-256 digest; 64 lower-case hex digits, from sha256sum",
		`notify: {n: {kind: webhook}}`:                                  "4:13: a `webhook` needs `url`",
		`notify: {n: {kind: file}}`:                                     "4:13: a `file` needs `path`",
		`notify: {n: {kind: file, path: /l, events: [runs]}}`:           "4:45: `events` must be `run`, `rollback` or `alert`, not `runs`; did you mean `run`?",
		`notify: {n: {kind: webhook, url: {env: A}, sign: hunter2}}`:    "4:50: `sign` is a secret and must not stand here; write {env: NAME}, {file: PATH} or {command: …}",
		`notify: {n: {kind: webhook, url: hooks}}`:                      "4:34: `url` is not a web address; it begins with http:// or https://",
		`notify: {n: {kind: webhook, url: {}}}`:                         "4:34: a secret needs one of `env`, `file` or `command`",
		`notify: {n: {kind: webhook, url: {env: A, file: /b}}}`:         "4:43: a secret is about one thing; `env` and `file` are two",
		"a: *b":      "4:4: unknown anchor 'b' referenced",
		"a: {b":      "5:1: did not find expected ',' or '}'",
		"\ta: b":     "4:1: this character cannot begin a word; put the word in quotes; spaces indent, not tabs",
		"---":        "deployer.yaml: the file holds more than one document; remove the line `---`",
		"? [a]\n: b": "4:3: a key must be a word",
	} {
		t.Run(line, func(t *testing.T) {
			if !strings.HasPrefix(want, "deployer.yaml: ") {
				want = "deployer.yaml:" + want
			}
			got := mistakes(t, goodProject+line+"\n", "version: 1\nphases: [{build: {hosts: []}}]\n", nil)
			expect(t, got, want)
		})
	}
}

func TestMistakesOfAHost(t *testing.T) {
	for host, want := range map[string]string{
		`{system: s}`:                                         "2:12: a host needs `address`",
		`{address: h}`:                                        "2:12: a host needs `system`",
		``:                                                    "2:12: a host needs `address`|2:12: a host needs `system`",
		`{address: a b, system: s}`:                           "2:22: `address`: `a b` is not an address; a host name, an IP address, address:port or an ssh_config alias",
		`{address: -oProxyCommand=x, system: s}`:              "2:22: `address`: `-oProxyCommand=x` is not an address; a host name, an IP address, address:port or an ssh_config alias",
		`{address: "h:22", system: s, port: 22}`:              "2:47: `address` already has a port",
		`{address: h, system: s, port: 70000}`:                "2:42: `port` must be at most 65535, not 70000",
		`{address: h, system: s, port: ssh}`:                  "2:42: `port` must be a whole number, not `ssh`",
		`{address: h, system: s, zone: Berlin}`:               "2:42: `zone`: `Berlin` is no time zone; an IANA name, like Europe/Berlin or UTC",
		`{address: h, system: s, build: there}`:               "2:43: `build` must be `controller` or `host`, not `there`",
		`{address: h, system: s}, a: {address: i, system: s}`: "2:37: `a` stands here twice; it is already at 2:9",
	} {
		t.Run(host, func(t *testing.T) {
			got := mistakes(t, "version: 1\nhosts: {a: "+host+"}\n", "version: 1\nphases: [{build: {}}]\n", nil)
			var all []string
			for one := range strings.SplitSeq(want, "|") {
				all = append(all, "deployer.yaml:"+one)
			}
			expect(t, got, all...)
		})
	}
}

func TestMistakesOfACheck(t *testing.T) {
	for body, want := range map[string]string{
		`within: 5s`:                         "13: a check needs one of `check`, `command`, `unit`, `tcp`, `http`, `file`, `mount`, `disk`, `subvolumes`, `snapshot`, `backup`, `reboot`, `fio` or `metric`",
		`unit: a.service, tcp: "h:1"`:        "31: a check is about one thing; `unit` and `tcp` are two",
		`unit: a`:                            "20: `unit`: `a` is not the name of a unit; write it with its kind, like caddy.service",
		`unit: a.service, witin: 5s`:         "31: a check has no key `witin`; did you mean `within`?",
		`unit: a.service, within: 5 minutes`: "39: `within` must be a duration, not `5 minutes`; write 5m",
		`unit: a.service, within: 30`:        "39: `within` must be a duration, not `30`; write 30s, 5m, 24h or 7d",
		`unit: a.service, within: 0s`:        "39: `within` must be a duration, not `0s`; longer than zero, at most a year",
		`unit: a.service, within: -5s`:       "39: `within` must be a duration, not `-5s`; write 30s, 5m, 24h or 7d",
		`unit: a.service, within: 99w`:       "39: `within` must be a duration, not `99w`; longer than zero, at most a year",
		`unit: a.service, within: [5s]`:      "39: `within` must be a duration, not a list",
		`unit: a.service, within: `:          "39: `within` has no value",
		`unit: a.service, interval: 1m`:      "41: `interval` (1m) is longer than `within` (30s)",
		`unit: a.service, timeout: 1m`:       "40: `timeout` (1m) is longer than `within` (30s)",
		`unit: a.service, successes: 0`:      "42: `successes` must be at least 1, not 0",
		`unit: a.service, successes: 31`:     "42: 31 successes, one each 1s, do not fit into `within` (30s)",
		`unit: a.service, start: maybe`:      "38: `start` must be true or false, not `maybe`",
		`unit: a.service, status: 200`:       "39: `status` means nothing with `unit`",
		`tcp: localhost`:                     "19: `tcp`: `localhost` is not host:port; like localhost:5432",
		`tcp: "localhost:http"`:              "19: `tcp`: `localhost:http` is not host:port; like localhost:5432",
		`tcp: "h:1", from: there`:            "32: `from` must be `host` or `controller`, not `there`",
		`http: localhost`:                    "20: `http`: `localhost` is not a web address; it begins with http:// or https://",
		`http: "http://h", status: 99`:       "40: `status` must be at least 100, not 99",
		`http: "http://h", status: ok`:       "40: `status` must be a whole number, not `ok`",
		`file: etc/x`:                        "20: `file`: `etc/x` must be an absolute path; write /etc/x",
		`mount: persist`:                     "21: `mount`: `persist` must be an absolute path; write /persist",
		`subvolumes: /persist`:               "26: `subvolumes` must be a list, not a word; write [/persist]",
		`subvolumes: []`:                     "26: `subvolumes` is empty",
		`command: []`:                        "23: `command` is empty",
		`reboot: false`:                      "22: `reboot` must be `true`, not `false`",
		`reboot: true, when: "1 == 1"`:       "34: `when` means nothing with `reboot`",
		`disk: /, when: "used_percnt < 85"`:  "30: `when` over `disk`: unknown name used_percnt; did you mean `used_percent`?",
		`disk: /, when: "5 < used"`:          "34: `when` over `disk`: unknown name used; there is free_bytes, free_percent, inodes_free_percent, total_bytes, used_bytes, used_percent",
		`disk: /, when: "used_percent"`:      "29: `when` over `disk`: must be true or false",
		`disk: /, when: "used_percent <"`:    "43: `when` over `disk`: unexpected token EOF",
		`backup: off-host`:                   "22: deployer.yaml has no backup `off-host`",
		`metric: load`:                       "22: deployer.yaml has no metric `load`",
		`http: "http://${host.adress}/"`:     "28: no variable `${host.adress}`; did you mean `host.address`?",
	} {
		t.Run(body, func(t *testing.T) {
			project := "version: 1\nhosts: {a: {address: h, system: s}}\nchecks: {c: {" + body + "}}\n"
			got := mistakes(t, project, "version: 1\nphases: [{build: {}}]\n", nil)
			expect(t, got, "deployer.yaml:3:"+want)
		})
	}
}

func TestACheckOfAProjectIsASection(t *testing.T) {
	project := "version: 1\nhosts: {a: {address: h, system: s}}\nchecks: {c: d}\n"
	expect(t, mistakes(t, project, "version: 1\nphases: [build]\n", nil),
		"deployer.yaml:3:13: a check of deployer.yaml must be a section, not the name `d`")
}

// Each mistake that the phases of a runbook can hold, alone in its file.
func TestMistakesOfPhases(t *testing.T) {
	const build, change, judge = "  - build: {}\n", "  - switch: {host: prod}\n", "  - validate: {checks: [ok]}\n"
	for phases, want := range map[string]string{
		"  - swich: {host: prod}\n": "3:5: a phase has no key `swich`; did you mean `switch`?",
		"  - explode: {}\n":         "3:5: a phase has no key `explode`|r.yaml:3:5: a phase needs one of `gate`, `backup`, `build`, `staging`, `window`, `switch`, `validate`, `monitor`, `edit` or `migrate`",
		"  - [build]\n":             "3:5: `phases` must be a section, not a list",
		"  - {}\n":                  "3:5: a phase needs one of `gate`, `backup`, `build`, `staging`, `window`, `switch`, `validate`, `monitor`, `edit` or `migrate`",
		"  - build: {}\n    window: {open: always}\n":     "4:5: a phase is about one thing; `build` and `window` are two",
		"  - build: {}\n    hosts: [prod]\n":              "4:5: a phase has no key `hosts`",
		"  - gate: ready\n    itms: []\n":                 "4:5: `gate` has no key `itms`; did you mean `items`?",
		"  - gate: not ready\n    items: [{check: ok}]\n": "3:11: `gate`: `not ready` is not a name; use letters, digits, `-`, `_` and `.`",
		"  - gate: {items: []}\n":                         "3:19: `items` is empty",
		"  - gate: {items: [{text: a}]}\n":                "3:20: an item needs one of `check` or `sign`",
		"  - gate: {items: [{sign: ops}]}\n":              "3:20: an item needs `text`",
		"  - gate: {items: [{check: ok, sign: ops}]}\n":   "3:32: an item is about one thing; `check` and `sign` are two",
		"  - gate: {items: [{check: oke}]}\n":             "3:28: deployer.yaml has no check `oke`; did you mean `ok`?",
		"  - gate: {items: [{check: {reboot: true}}]}\n" + build + change + "  - validate: {checks: [{reboot: true}]}\n": "3:28: `reboot` reboots the host: `gate` cannot; move it to `staging` or `validate`",
		build + change + judge + "  - monitor: {for: 1h, rules: [{reboot: true, within: 30s}]}\n":                        "6:32: `reboot` reboots the host: `monitor` cannot; move it to `staging` or `validate`",
		"  - backup: {}\n":                                                           "3:13: `backup` needs `files` or `host`",
		"  - backup: {files: [/etc/x]}\n":                                            "3:22: `files`: `/etc/x` must be a path within the project's folder; files of a host stand under `host`",
		"  - backup: {files: [../x]}\n":                                              "3:22: `files`: `../x` must be a path within the project's folder; files of a host stand under `host`",
		"  - backup: {host: {prd: [/etc/x]}}\n":                                      "3:21: deployer.yaml has no host `prd`; did you mean `prod`?",
		"  - backup: {host: {prod: [etc/x]}}\n":                                      "3:28: `prod`: `etc/x` must be an absolute path; write /etc/x",
		"  - build: {hosts: [prd]}\n":                                                "3:21: deployer.yaml has no host `prd`; did you mean `prod`?",
		"  - build: {hosts: [prod], on: moon}\n":                                     "3:32: `on` must be `controller` or `host`, not `moon`",
		build + "  - window: {open: always}\n":                                       "4:5: nothing is switched after this window; move it before `switch`",
		"  - window: {open: sat 2-4}\n" + build + change + judge:                     "3:20: `open`: `sat 2-4` is not a window; like `always`, `sat 02:00-04:00 UTC` or `mon-fri 22:00-02:00 Europe/Berlin`",
		"  - window: {open: always, reserve: rollbck}\n" + build + change + judge:    "3:37: `reserve` must be `rollback`, not `rollbck`; did you mean `rollback`?",
		"  - window\n" + build + change + judge:                                      "3:5: `window` needs `open`",
		build + "  - switch: {}\n" + judge:                                           "4:13: `switch` needs `host`",
		build + "  - switch: {host: prod, reboot: maybe}\n" + judge:                  "4:34: `reboot` must be `ask`, `auto` or `never`, not `maybe`",
		build + "  - switch: {host: prod, confirm_within: 20s}\n" + judge:            "4:42: the checks of `validate` may take 30s, longer than `confirm_within` (20s) of `switch`; raise it, or lower `within` of the checks",
		build + change + "  - validate: {checks: [{unit: b.service, within: 4m}]}\n": "4:13: the checks of `validate` may take 4m, longer than `confirm_within` (3m) of `switch`; raise it, or lower `within` of the checks",
		change + judge:         "3:5: `switch` changes `prod`, which no `build` before it builds; add a `build` before it",
		change + judge + build: "3:5: `switch` changes `prod`, which no `build` before it builds; add a `build` before it",
		"  - build: {hosts: [stage]}\n" + change + judge: "4:5: `switch` changes `prod`, which no `build` before it builds; add a `build` before it",
		build + change: "4:5: `switch` is never validated, so nothing would be committed; add a `validate` after it",
		build + "  - staging: {host: prod}\n" + change + judge:                                      "5:5: `switch` changes `prod`, which `staging` at 4:5 changes already",
		build + change + change + judge:                                                             "5:5: `switch-2` changes `prod`, which `switch` at 4:5 changes already",
		build + judge + change + judge:                                                              "4:5: `validate` comes before anything was switched",
		build + change + judge + "  - backup: {files: [a]}\n":                                       "6:5: `backup` comes after the first switch: it would copy what was changed already",
		build + change + "  - monitor: {for: 1h}\n" + judge:                                         "5:5: `monitor` comes before `validate`",
		build + change + judge + "  - monitor: {}\n":                                                "6:14: `monitor` needs `for`",
		build + change + judge + "  - monitor: {for: 1m, every: 1h}\n":                              "6:31: `every` (1h) is longer than `for` (1m)",
		build + change + judge + "  - monitor: {for: 1m, rollback_within: 1h}\n":                    "6:41: `rollback_within` (1h) is longer than `for` (1m)",
		build + change + judge + "  - monitor: {for: 1h, rules: [{do: alert}]}\n":                   "6:32: a rule needs one of `check`, `command`, `unit`, `tcp`, `http`, `file`, `mount`, `disk`, `subvolumes`, `snapshot`, `backup`, `reboot`, `fio` or `metric`",
		build + change + judge + "  - monitor: {for: 1h, rules: [oke]}\n":                           "6:32: deployer.yaml has no check `oke`; did you mean `ok`?",
		build + change + judge + "  - monitor: {for: 1h, rules: [{check: ok, do: explode}]}\n":      "6:48: `do` must be `warn`, `alert` or `rollback`, not `explode`",
		build + change + judge + "  - monitor: {for: 1h, rules: [{check: ok, disk: /}]}\n":          "6:44: a rule is about one thing; `check` and `disk` are two",
		build + change + judge + "  - monitor: {for: 1h, rules: [{unit: a.service, within: 2m}]}\n": "6:58: `within` (2m) is longer than the monitor's `every` (1m)",
		build + change + judge + "  - monitor: {for: 1h, rules: [{disk: /, when: \"used > 1\"}]}\n": "6:49: `when` over `disk`: unknown name used; there is free_bytes, free_percent, inodes_free_percent, total_bytes, used_bytes, used_percent",
	} {
		t.Run(phases, func(t *testing.T) {
			var all []string
			for one := range strings.SplitSeq(want, "|") {
				all = append(all, "r.yaml:"+strings.TrimPrefix(one, "r.yaml:"))
			}
			expect(t, mistakes(t, goodProject, "version: 1\nphases:\n"+phases, nil), all...)
		})
	}
}

func TestMistakesOfARunbooksFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "r.yaml: the file is empty",
		"# nothing\n":                   "r.yaml: the file is empty",
		"- build\n":                     "r.yaml:1:1: the file must be a section of keys, not a list",
		"version: 1\n":                  "r.yaml:1:1: a runbook needs `phases`",
		"version: 1\nphases: []\n":      "r.yaml:2:9: `phases` is empty",
		"version: 7\nphases: [build]\n": "r.yaml:1:10: `version` must be `1`, not `7`",
		"phases: [build]\n":             "r.yaml:1:1: a runbook needs `version`",
		"version: 1\nphases: [{window: {open: ${w}}}]\n": "r.yaml:2:27: did not find expected ',' or '}'; inside [] and {} a variable needs quotes: \"${name}\"",
		"version: 1\nphases: [&a build, *a]\n":           "r.yaml:2:20: aliases (`*a`) are not known here; use a variable, or name a check once under `checks`",
		"version: 1\nphases: [build: 'x]\n":              "r.yaml:2:17: the quote is never closed",
	} {
		t.Run(text, func(t *testing.T) { expect(t, mistakes(t, goodProject, text, nil), want) })
	}
}

func TestMistakesOfVariables(t *testing.T) {
	const phases = "phases: [{build: {hosts: [\"${a}\"]}}]\n"
	for _, c := range []struct {
		vars, phases string
		given        map[string]string
		want         string
	}{
		{"{a: stage}", phases, map[string]string{"b": "1"}, "--var b: r.yaml has no variable `b`"},
		{"{alpha: stage}", "phases: [{build: {hosts: [\"${alpha}\"]}}]\n", map[string]string{"alhpa": "1"}, "--var alhpa: r.yaml has no variable `alhpa`; did you mean `alpha`?"},
		{"{a: stage}", "phases: [{build: {hosts: [\"${b}\"]}}]\n", nil, "r.yaml:3:28: no variable `${b}`"},
		{"{a: \"${b}\", b: stage}", phases, nil, "r.yaml:2:12: no variable `${b}`"},
		{"{a: [stage]}", "phases: [build]\n", nil, "r.yaml:2:11: `a` must be a word, not a list"},
		{"{host: stage}", "phases: [build]\n", nil, "r.yaml:2:8: `host` cannot name a variable"},
		{"{a b: stage}", "phases: [build]\n", nil, "r.yaml:2:8: `a b` cannot name a variable; use letters, digits, `-`, `_` and `.`"},
		{"{a: 5 minutes}", "phases: [{window: {open: always}}, build, {switch: {host: prod, confirm_within: \"${a}\"}}, {validate: {checks: []}}]\n", nil,
			"r.yaml:3:81: `confirm_within` must be a duration, not `5 minutes` (from `${a}`); write 5m"},
	} {
		t.Run(c.vars, func(t *testing.T) {
			expect(t, mistakes(t, goodProject, "version: 1\nvars: "+c.vars+"\n"+c.phases, c.given), c.want)
		})
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	_, _, err := runbooks.Load(runbooks.Options{Project: "testdata/none.yaml", Runbook: "prodution"})
	want := "testdata/none.yaml: there is no such file; `deployer init` writes one\n" +
		"testdata/runbooks/prodution.yaml: there is no such file; did you mean `production`?"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if _, err := runbooks.LoadProject("testdata/none.yaml/x"); err == nil {
		t.Error("a file below a file was read")
	}
}

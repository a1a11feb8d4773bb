package simulation

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

// exec is a program of the host, in place of the kernel's. Its effects have
// points before, between and after them.
func (p *process) exec(ctx context.Context, _ string, prog agent.Program) (agent.Ending, error) {
	m := p.m
	args := append([]string{path.Base(prog.Args[0])}, prog.Args[1:]...)
	name := strings.TrimPrefix(prog.Args[0], m.dir)
	say := func(code int, format string, a ...any) agent.Ending {
		if prog.Stdout != nil {
			fmt.Fprintf(prog.Stdout, format+"\n", a...)
		}
		return agent.Ending{Code: code}
	}
	if err := p.alive(); err != nil {
		return agent.Ending{}, err
	}
	var e agent.Ending
	switch args[0] {
	case "switch-to-configuration":
		e = m.switchTo(ctx, p, path.Dir(path.Dir(name)), args[1], say)
	case "nix-env":
		e = m.nixEnv(ctx, p, args[1:], say)
	case "systemctl":
		e = m.systemctl(p, args[1:], say)
	case "bootctl":
		e = m.bootctl(p, args[1:], say)
	case "sh":
		e = say(1, "no shell in this world")
	case "journalctl", "wall", "logger":
		e = say(0, "")
	default:
		m.w.fail("%s: %s runs %q, which this world does not know", m.name, p.name, args)
		e = say(127, "not found")
	}
	if cause := context.Cause(ctx); cause != nil {
		e.Code, e.Signal, e.Over = 143, "TERM", cause
	}
	return e, p.alive()
}

// moment is how long a part of a program takes: the agent looks every 5 ms.
const moment = 20 * time.Millisecond

type sayer = func(code int, format string, a ...any) agent.Ending

// takes is a program's time; it tells whether the program was ended meanwhile.
func (p *process) takes(ctx context.Context, d time.Duration) (ended bool) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() != nil || p.alive() != nil
}

func (m *machine) switchTo(ctx context.Context, p *process, top, action string, say sayer) agent.Ending {
	short := strings.TrimPrefix(top[strings.LastIndexByte(top, '-')+1:], "-")
	if !p.at("exec " + short + " " + action) {
		return agent.Ending{}
	}
	if action != "dry-activate" {
		m.effect(p, top == newSystem, short+" "+action)
	}
	if !m.lockSwitch(p) {
		return say(1, "Could not acquire lock")
	}
	defer m.unlockSwitch(p)
	switch action {
	case "dry-activate":
		return say(0, "would restart the following units: web.service")
	case "test", "switch":
		return m.activate(ctx, p, top, short, say)
	case "boot":
		return m.writeLoader(ctx, p, top, short, say)
	}
	return say(1, "unknown action %s", action)
}

func (m *machine) activate(ctx context.Context, p *process, top, short string, say sayer) agent.Ending {
	isNew := top == newSystem
	if isNew && m.behave.inhibits {
		return say(100, "the new init cannot be switched to")
	}
	m.mix("activating " + short)
	if p.takes(ctx, moment) {
		return agent.Ending{Code: 143, Signal: "TERM"}
	}
	if isNew && m.behave.breaks || !isNew && m.behave.stuck {
		return say(2, "the activation script failed")
	}
	if !p.at("exec " + short + " test: activated") {
		return agent.Ending{}
	}
	m.symlink("/run/current-system", top)
	if p.takes(ctx, moment) {
		return agent.Ending{Code: 143, Signal: "TERM"}
	}
	if !p.at("exec " + short + " test: units") {
		return agent.Ending{}
	}
	m.mix("")
	p.point("exec " + short + " test: done")
	return say(0, "activated")
}

func (m *machine) mix(by string) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.mixed = by
}

func (m *machine) lockSwitch(p *process) bool {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.switcher != nil && m.switcher != p && m.procs[m.switcher] && m.switcher.alive() == nil {
		return false
	}
	m.switcher = p
	return true
}

func (m *machine) unlockSwitch(p *process) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.switcher == p {
		m.switcher = nil
	}
}

// writeLoader is `boot`: entries, then the default, then a sync.
func (m *machine) writeLoader(ctx context.Context, p *process, top, short string, say sayer) agent.Ending {
	if p.takes(ctx, moment) {
		return agent.Ending{Code: 143, Signal: "TERM"}
	}
	m.loader(top)
	if !p.at("exec " + short + " boot: written") {
		return agent.Ending{}
	}
	m.settle(m.dir + "/boot/loader")
	m.settle(m.dir + "/boot/loader/entries")
	p.point("exec " + short + " boot: done")
	return say(0, "")
}

func (m *machine) nixEnv(ctx context.Context, p *process, args []string, say sayer) agent.Ending {
	profile := strings.TrimPrefix(args[1], m.dir)
	dir, base := path.Split(profile)
	what := strings.Join(args[2:], " ")
	what = strings.ReplaceAll(strings.ReplaceAll(what, oldSystem, "old"), newSystem, "new")
	p.point("exec nix-env " + base + " " + what)
	if p.takes(ctx, moment) {
		return agent.Ending{Code: 143, Signal: "TERM"}
	}
	m.effect(p, base == "system" && strings.HasSuffix(what, "--set new"), "nix-env "+what)
	number := 0
	switch args[2] {
	case "--set":
		number = m.generationFor(dir, base, args[3])
	case "--switch-generation":
		number, _ = strconv.Atoi(args[3])
		if !m.has(generationLink(profile, number)) {
			return say(1, "no generation %d", number)
		}
	case "--delete-generations":
		n, _ := strconv.Atoi(args[3])
		m.remove(generationLink(profile, n))
		p.point("exec nix-env " + base + " " + what + ": done")
		return say(0, "")
	default:
		m.w.fail("%s: nix-env %q", m.name, args)
	}
	if !p.at("exec nix-env " + base + " " + what + ": linked") {
		return agent.Ending{}
	}
	m.symlink(profile, path.Base(generationLink(profile, number)))
	p.point("exec nix-env " + base + " " + what + ": done")
	return say(0, "")
}

func generationLink(profile string, n int) string { return fmt.Sprintf("%s-%d-link", profile, n) }

// generationFor is Nix's rule: the newest one again if it is the same system.
func (m *machine) generationFor(dir, base, system string) int {
	newest, is := 0, ""
	m.eachGeneration(func(profile string, n int, top string) {
		if profile == base && n > newest {
			newest, is = n, top
		}
	})
	if is == system && newest > 0 {
		return newest
	}
	m.symlink(generationLink(dir+base, newest+1), system)
	return newest + 1
}

func (m *machine) systemctl(p *process, args []string, say sayer) agent.Ending {
	if !p.at("exec systemctl " + strings.Join(args, " ")) {
		return agent.Ending{}
	}
	if args[0] == "is-system-running" {
		return say(0, "running")
	}
	for _, a := range args {
		if a == "reboot" {
			m.w.logf("%s reboots: %s %s", m.name, p.name, p.unit)
			go m.reboot()
			return say(0, "")
		}
	}
	m.w.fail("%s: systemctl %q", m.name, args)
	return say(1, "unknown")
}

func (m *machine) bootctl(p *process, args []string, say sayer) agent.Ending {
	if !p.at("exec bootctl " + strings.Join(args, " ")) {
		return agent.Ending{}
	}
	for i, a := range args {
		if a == "set-oneshot" && len(args) > i+1 {
			if args[i+1] == "" {
				m.oneShot(true)
			} else {
				m.setOneShot(args[i+1])
			}
			return say(0, "")
		}
	}
	m.w.fail("%s: bootctl %q", m.name, args)
	return say(1, "unknown")
}

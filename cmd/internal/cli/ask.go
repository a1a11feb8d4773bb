package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/syntax"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// asker asks a person, on the terminal, or says which flag answers instead.
type asker struct {
	*app
	signs []string
	run   string // that is saved if nobody signs
	human *view.Human
	in    *bufio.Reader // nil: standard input
}

func (a *asker) interactive() bool {
	return !a.noInput && !a.json && os.Getenv("CI") == "" && term.IsTerminal(int(os.Stdin.Fd()))
}

// line reads one answer, until ctx is over.
func (a *asker) line(ctx context.Context, prompt string) (string, error) {
	if a.human != nil {
		a.human.Pause()
	}
	if a.in == nil {
		a.in = bufio.NewReader(os.Stdin)
	}
	a.Notef("%s", prompt)
	type reply struct {
		text string
		err  error
	}
	replies := make(chan reply, 1)
	go func() {
		text, err := a.in.ReadString('\n')
		replies <- reply{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-replies:
		if r.err != nil {
			return "", usage(errors.New("no answer was given"))
		}
		return strings.TrimSpace(r.text), nil
	}
}

// confirm asks for a yes before the first change.
func (a *asker) confirm(ctx context.Context, question string, yes bool, flag string) error {
	if yes {
		return nil
	}
	if !a.interactive() {
		return &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("a confirmation is needed and nobody can be asked"), Safe: "nothing was changed on any host", Hint: []string{a.again(flag)}}
	}
	answer, err := a.line(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return &phases.Failure{Exit: phases.ExitUsage, Err: errDeclined, Safe: "nothing was changed on any host"}
	}
	return nil
}

// Sign implements phases.Asker: a recorded flag, or the prompt.
func (a *asker) Sign(ctx context.Context, who, text string) (string, error) {
	for _, s := range a.signs {
		role, by, named := strings.Cut(s, "=")
		if role != who {
			continue
		}
		if !named {
			by = owner()
		}
		return by + " (--sign)", nil
	}
	if !a.interactive() {
		return "", &phases.Failure{Exit: phases.ExitWaiting, Err: fmt.Errorf("%s has to sign %q and nobody can be asked", who, text), Hint: []string{"deployer resume " + a.run + " --sign " + quote(who)}}
	}
	answer, err := a.line(ctx, fmt.Sprintf("%s: %s. Type your name to sign: ", who, text))
	if err != nil {
		return "", err
	}
	if answer == "" {
		return "", &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("not signed: %s", text)}
	}
	return answer + " at " + owner(), nil
}

// again is the command that was typed, with one flag more.
func (a *app) again(flag string) string {
	words := []string{"deployer"}
	for _, arg := range a.args {
		words = append(words, quote(arg))
	}
	return strings.Join(append(words, flag), " ")
}

func quote(arg string) string {
	q, err := syntax.Quote(arg, syntax.LangBash)
	if err != nil { // it has a NUL byte, so nobody typed it
		return arg
	}
	return q
}

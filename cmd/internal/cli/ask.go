package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/hbohlen/deployer/cmd/internal/view"
	"github.com/hbohlen/deployer/phases"
)

// asker asks a person, on the terminal, or says which flag answers instead.
type asker struct {
	*app
	signs []string
	human *view.Human
}

func (a *asker) interactive() bool {
	return !a.noInput && !a.json && os.Getenv("CI") == "" && term.IsTerminal(int(os.Stdin.Fd()))
}

// line reads one answer.
func (a *asker) line(prompt string) (string, error) {
	if a.human != nil {
		a.human.Pause()
	}
	a.Notef("%s", prompt)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return "", usage(fmt.Errorf("no answer was given"))
	}
	return strings.TrimSpace(answer), nil
}

// confirm asks for a yes before the first change.
func (a *asker) confirm(question string, yes bool, flag string) error {
	if yes {
		return nil
	}
	if !a.interactive() {
		return &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("a confirmation is needed and nobody can be asked"), Safe: "nothing was changed on any host", Hint: []string{"# add " + flag}}
	}
	answer, err := a.line(question + " [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return &phases.Failure{Exit: phases.ExitUsage, Err: errDeclined, Safe: "nothing was changed on any host"}
	}
	return nil
}

// Sign implements phases.Asker: a recorded flag, or the prompt.
func (a *asker) Sign(_ context.Context, who, text string) (string, error) {
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
		return "", &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("%s has to sign %q and nobody can be asked", who, text), Hint: []string{"# add --sign " + who}}
	}
	answer, err := a.line(fmt.Sprintf("%s: %s. Type your name to sign: ", who, text))
	if err != nil {
		return "", err
	}
	if answer == "" {
		return "", &phases.Failure{Exit: phases.ExitUsage, Err: fmt.Errorf("not signed: %s", text)}
	}
	return answer + " at " + owner(), nil
}

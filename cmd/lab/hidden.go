package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// hiddenCommands are what the lab starts itself as.
func hiddenCommands() []*cobra.Command {
	commands := []*cobra.Command{
		command("_store", "", cobra.NoArgs, func([]string) error { return currentLab().addUserland() }),
		command("_image", "", cobra.ExactArgs(2), makeImage),
		command("_holder", "", cobra.ExactArgs(1), func([]string) error { return currentLab().hold() }),
		command("_host", "", cobra.ExactArgs(1), playHost),
		command("_link", "", cobra.ExactArgs(5), serveLink),
	}
	for _, c := range commands {
		c.Hidden = true
	}
	return commands
}

func makeImage(args []string) error {
	var s spec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	return currentLab().image(s, args[1]).make()
}

func playHost(args []string) error {
	m, err := currentLab().machine(args[0])
	if err != nil {
		return err
	}
	return m.play()
}

func serveLink(args []string) error {
	delay, err := time.ParseDuration(args[0])
	jitter, err2 := time.ParseDuration(args[1])
	loss, err3 := strconv.ParseFloat(args[2], 64)
	if err != nil || err2 != nil || err3 != nil {
		return fmt.Errorf("internal error: _link %v", args)
	}
	return link{delay, jitter, loss}.serve(args[3], args[4])
}

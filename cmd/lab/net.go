package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func netCommand() *cobra.Command {
	var jitter time.Duration
	var loss float64
	cmd := command("net HOST cut | heal | delay TIME [--jitter TIME] [--loss PERCENT] | loss PERCENT | clear",
		"Disturb a host's network, on the lab's side of the cable", cobra.RangeArgs(2, 3),
		inHost(func(m machine, args []string) error { return m.network(args, jitter, loss) }))
	cmd.Flags().DurationVar(&jitter, "jitter", 0, "change of the delay, either way")
	cmd.Flags().Float64Var(&loss, "loss", 0, "percent of the frames that are lost, each way")
	return cmd
}

func (m machine) network(args []string, jitter time.Duration, loss float64) error {
	switch args[0] + strconv.Itoa(len(args)-1) { // the word and how many follow it
	case "cut0":
		return m.sh("cut_cable")
	case "heal0":
		return m.sh("heal")
	case "clear0":
		return m.sh("clear_link")
	case "delay1":
		delay, err := time.ParseDuration(args[1])
		if err != nil {
			return fmt.Errorf("cannot use the delay %s: it is a time such as 50ms", args[1])
		}
		return m.disturb(link{delay, jitter, loss / 100})
	case "loss1":
		percent, err := strconv.ParseFloat(args[1], 64)
		if err != nil {
			return fmt.Errorf("cannot use the loss %s: it is a number of percent", args[1])
		}
		return m.disturb(link{Loss: percent / 100})
	}
	return fmt.Errorf("cannot do %q to the network: see lab net --help", strings.Join(args, " "))
}

func (m machine) disturb(l link) error {
	words, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return m.sh("disturb", string(words))
}

package simulation

import "os"

// scenario is one story, before anything is killed.
type scenario struct {
	name            string
	staging         behaviour
	production      behaviour
	abortAt, stopAt string // the point at which the operator aborts, or leaves
	exit            int
}

const validates = "controller: journal step.intent validate/contact@production #1"

var scenarios = []*scenario{
	{name: "success", staging: behaviour{module: true}, production: behaviour{module: true}},
	{name: "failing validation", staging: behaviour{module: true}, production: behaviour{module: true, sick: true}, exit: 20},
	{name: "failing activation", production: behaviour{breaks: true}, exit: 20}, // without the module
	{name: "reboot route", staging: behaviour{module: true}, production: behaviour{module: true, inhibits: true}},
	{name: "failing undo", staging: behaviour{module: true}, production: behaviour{module: true, sick: true, stuck: true}, exit: 30},
	{name: "operator abort", staging: behaviour{module: true}, production: behaviour{module: true}, abortAt: validates, exit: 22},
	{name: "operator leaves", staging: behaviour{module: true}, production: behaviour{module: true}, stopAt: validates},
}

func newWorld(s *scenario, plan []crash) *world {
	dir, err := os.MkdirTemp("/dev/shm", "sim-")
	check(err)
	w := &world{dir: dir, scenario: s, count: map[string]int{}, plan: plan}
	w.machines = []*machine{newMachine(w, "staging", dir+"/staging", s.staging), newMachine(w, "production", dir+"/production", s.production)}
	return w
}

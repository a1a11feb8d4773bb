// Command try calls an agent's operations by hand:
// try COMMAND… -- OP JSON OP JSON …
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

type pipe struct {
	io.Reader
	io.WriteCloser
}

func main() {
	i := slices.Index(os.Args, "--")
	c := exec.Command(os.Args[1], os.Args[2:i]...)
	c.Stderr = os.Stderr
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		panic(err)
	}
	client := agent.NewClient(pipe{out, in})
	for ops := os.Args[i+1:]; len(ops) >= 2; ops = ops[2:] {
		start := time.Now()
		var res json.RawMessage
		err := client.Call(context.Background(), ops[0], json.RawMessage(ops[1]), &res)
		fmt.Printf("== %s %.150s (%s) err=%v\n%s\n", ops[0], ops[1], time.Since(start).Round(time.Millisecond), err, res)
		if e, ok := err.(*agent.Error); ok {
			fmt.Printf("   code %s hint %q\n", e.Code, e.Hint)
		}
	}
	client.Close()
	fmt.Println("exit", c.Wait())
}

// Command berth-agent looks after one appliance: the daemon with its REST API
// (berth-agent serve), and the command line that asks it.
package main

import (
	"os"

	"berth/agent/command"
)

func main() { os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

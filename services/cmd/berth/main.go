// Command berth is the registry: all services at once (berth up), each alone
// (berth registry, token, core, jobs), and the tools for whoever runs it.
package main

import (
	"os"

	"berth/services/command"
)

func main() { os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr)) }

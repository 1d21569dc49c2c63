// Command ova makes the appliance's OVA from disk images, checks it, shows what is in
// it, and takes disks out of it.
package main

import (
	"os"

	"berth/ova"
)

func main() { os.Exit(ova.Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Command testreport reads what `go test -json` writes and tells a person about it: one line for each package, the
// whole output of each test that failed, at the end every skipped test by name with its reason, and a last line
// "N passed, N failed, N skipped". It exits with 1 when anything failed.
package main

import (
	"fmt"
	"os"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}
